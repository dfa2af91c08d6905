"""What the benchmark runs: shapes, and how many rounds each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from megatron_iberis.config import ModelConfig, OptimizerConfig, Recipe, TrainConfig, load_recipe

Dtype = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Shape:
    """A model and the rows of a step of it, all in one micro-batch."""

    name: str
    model: ModelConfig
    """Resolved."""
    rows: int
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.rows * self.model.sequence_length

    def recipe(self, dtype: Dtype, compiled: bool = False) -> Recipe:
        """A run of this shape in that precision."""
        train = TrainConfig(
            steps=1000, batch_tokens=self.tokens, device_batch=self.rows, dtype=dtype, compile=compiled
        )
        return Recipe(model=self.model, train=train, optimizer=self.optimizer).resolved()


@dataclass(frozen=True)
class Scale:
    """How much is measured. Rounds that warm up (and compile) come before those that count."""

    small: Shape
    """For everything."""
    large: Shape
    """For whole steps and their memory, where there is room for it."""
    rounds: int = 9
    warm_up: int = 3
    loss_rounds: int = 31
    """A difference of two times is measured, so more of them."""
    large_rounds: int = 3
    large_warm_up: int = 1
    memory_steps: int = 3
    large_needs: float = 16e9
    """Bytes of available memory without which the large shape is left out."""


NEWTON_SCHULZ: Dtype = "bf16"
"""On both sides, whatever the model's precision: so has upstream it."""


@cache
def full() -> Scale:
    """The published benchmark: d4, a small English model; d12, the Japanese-English recipe at one row of 512."""
    small = ModelConfig(depth=4, width=256, vocab_size=8192, sequence_length=512).resolved()
    settings = ("--model.sequence_length=512", "--train.batch_tokens=512", "--train.device_batch=1")
    d12 = load_recipe("d12", [*settings, f"--optimizer.newton_schulz_dtype={NEWTON_SCHULZ}"])
    return Scale(
        Shape("d4", small, 4, OptimizerConfig(newton_schulz_dtype=NEWTON_SCHULZ)),
        Shape("d12", d12.model, 1, d12.optimizer),
    )
