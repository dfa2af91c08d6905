"""Section [train]: horizon and batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from megatron_iberis.config.checks import AtLeast, AtMost, Auto, Below, require
from megatron_iberis.config.model import ModelConfig


@dataclass(frozen=True)
class TrainConfig:
    """Horizon and batch."""

    steps: Annotated[int, AtLeast(0)] = 0
    """Optimizer steps; 0: by epochs, failing that by target_flops, and failing that by tokens_per_parameter."""
    epochs: Annotated[int, AtLeast(0)] = 0
    """Passes over the conversations of tasks.mixture, each a whole number of steps; 0: 1, where there is one."""
    target_flops: Annotated[float, AtLeast(0)] = 0.0
    """Training compute of the whole run; 0: by tokens_per_parameter."""
    tokens_per_parameter: Annotated[float, AtLeast(0), AtMost(1_000_000)] = 20.0
    """Horizon when neither steps nor target_flops is given: tokens seen for each parameter."""
    batch_tokens: Annotated[int, AtLeast(1)] = 524288
    """Tokens of an optimizer step, all ranks together."""
    device_batch: Annotated[int, AtLeast(0), Auto] = 32
    """Rows of a micro-batch on one data-parallel rank; gradient accumulation makes up the rest. "auto" (0): the most
    that fit in memory by the plan (iberis plan), found when the run starts."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Precision of the model; with bf16 the master weights and gradient sums are fp32."""
    compile: bool = False
    """Compiles the layers with torch.compile: up to a minute before the first step, then faster ones."""
    seed: Annotated[int, AtLeast(0), Below(2**63)] = 42
    """Seed of the initialisation and of the order of samples."""
    log_every: Annotated[int, AtLeast(1)] = 1
    """Steps between console lines."""
    max_skipped_steps: Annotated[int, AtLeast(1)] = 3
    """So many steps in a row with a loss or gradient that is not finite end the run; one alone is skipped."""

    def check(self, model: ModelConfig) -> None:
        """Raises InputError when there is no horizon, or the batch is no multiple of a micro-batch."""
        require(
            self.steps > 0 or self.epochs > 0 or self.target_flops > 0 or self.tokens_per_parameter > 0,
            "the run has no horizon: set train.steps, train.target_flops or train.tokens_per_parameter.",
        )
        row = max(1, self.device_batch) * model.sequence_length
        require(
            self.batch_tokens % row == 0,
            f"train.batch_tokens {self.batch_tokens} is no multiple of train.device_batch x model.sequence_length "
            f"= {self.device_batch} x {model.sequence_length} = {row}: change one of the three.",
        )

    def horizon(self, model: ModelConfig) -> int:
        """Optimizer steps of the run: explicit, else by epochs, else by compute, else by tokens per parameter.

        0 where it is by epochs, until the conversations have been counted.
        """
        if self.steps > 0 or self.epochs > 0:
            return self.steps
        if self.target_flops > 0:
            return max(1, round(self.target_flops / (model.flops_per_token() * self.batch_tokens)))
        return max(1, int(self.tokens_per_parameter * model.parameter_count()) // self.batch_tokens)

    def accumulation(self, model: ModelConfig, data_parallel: int) -> int:
        """Micro-batches a step on each of `data_parallel` ranks; InputError when they do not fit.

        As long as device_batch is to be found, of one row.
        """
        rows = max(1, self.device_batch) * model.sequence_length
        require(
            self.batch_tokens % (rows * data_parallel) == 0,
            f"train.batch_tokens {self.batch_tokens} cannot be shared by {data_parallel} data-parallel ranks with "
            f"{self.device_batch} rows of {model.sequence_length} tokens each: set train.device_batch to a divisor "
            f"of {self.batch_tokens // model.sequence_length} / {data_parallel}, or train.batch_tokens to a multiple "
            f"of {rows * data_parallel}.",
        )
        return self.batch_tokens // (rows * data_parallel)
