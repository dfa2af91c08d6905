"""The parameters of a model as they lie on one rank, by formula: tests hold it against the real model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from megatron_iberis.config import ModelConfig, OptimizerConfig
from megatron_iberis.training.newton_schulz import flops, precision

GROUPS = ("matrix", "embedding", "unembedding", "convolution")
"""The optimizer's parameter groups, in its order."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of rank 0; shape: of the full tensor."""

    group: str
    shape: tuple[int, ...]
    numel: int
    """On this rank, padding included."""
    part: str
    """Where it is used: "embedding", "slc2", "attention" or "head"."""


def parameters_of(model: ModelConfig, tp: int) -> list[Parameter]:
    """All parameters on a rank of `tp`, in the model's order."""
    e, f, head = model.width, model.mlp_hidden, model.width // model.heads
    vocabulary = -(-model.vocab_size // tp)

    def matrix(part: str, rows: int, cols: int, split: bool = True) -> Parameter:
        return Parameter("matrix", (rows, cols), rows * cols // (tp if split else 1), part)

    kv, split_kv = model.kv_heads * head, model.kv_heads % tp == 0
    mixers = {
        "attention": [
            matrix("attention", e, e),
            matrix("attention", kv, e, split_kv),
            matrix("attention", kv, e, split_kv),
            matrix("attention", e, e),
        ],
        "slc2": [
            matrix("slc2", e, e),
            matrix("slc2", model.heads, e),
            matrix("slc2", head, e, split=False),
            matrix("slc2", e, e),
            Parameter("convolution", (e, 1, model.kernel), e * model.kernel // tp, "slc2"),
            matrix("slc2", e, e),
        ],
    }
    found = [Parameter("embedding", (model.vocab_size, e), vocabulary * e, "embedding")]
    for layer in range(model.depth):
        kind = "attention" if model.is_attention(layer) else "slc2"
        found += [*mixers[kind], matrix(kind, f, e), matrix(kind, e, f)]
    return [*found, Parameter("unembedding", (model.vocab_size, e), vocabulary * e, "head")]


@dataclass(frozen=True)
class Owner:
    """The matrices that a rank orthogonalises."""

    shapes: tuple[tuple[int, ...], ...]
    flops: float

    @property
    def elements(self) -> int:
        return sum(map(math.prod, self.shapes))


def heaviest_owner(parameters: list[Parameter], world: int, optimizer: OptimizerConfig) -> Owner:
    """Muon's matrices go whole to owners, the dearest first, always to the least loaded of `world` ranks: the rank
    that has most to do."""
    cost = partial(flops, steps=optimizer.newton_schulz_steps, dtype=precision(optimizer))
    matrices = [p.shape for p in parameters if p.group == "matrix"]
    owned: list[list[tuple[int, ...]]] = [[] for _ in range(min(world, len(matrices)))]
    loads = [0.0] * len(owned)
    for shape in sorted(matrices, key=cost, reverse=True):
        owner = loads.index(min(loads))
        loads[owner] += cost(shape)
        owned[owner].append(shape)
    most = loads.index(max(loads))
    return Owner(tuple(owned[most]), loads[most])
