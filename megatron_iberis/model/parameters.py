"""Where each rank's parameters lie in full tensors, written into them at birth, and their canonical names.

* `place` is called by whoever creates a parameter, and nobody else says how it is split.
* `shards` gives a model's parameters by upstream's (nanochat's) names: `transformer.h.3.attn.x_proj.weight`.
  Initialisation, optimizer groups, checkpoints and conversion speak of full tensors by these, whatever the layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.distributed import ProcessGroup

Kind = Literal["matrix", "convolution", "embedding", "unembedding"]

_WHOLE = {"embedding.weight": "transformer.wte.weight", "head.weight": "lm_head.weight"}
_LAYERS = {
    "linear_q": "c_q",
    "linear_k": "c_k",
    "linear_v": "c_v",
    "linear_x": "x_proj",
    "linear_alpha": "alpha_proj",
    "linear_a": "A_proj",
    "linear_b": "B_proj",
    "conv": "conv1d",
    "linear_proj": "c_proj",
    "linear_fc1": "c_fc",
    "linear_fc2": "c_proj",
}


@dataclass(frozen=True)
class Partition:
    """Which part of a full tensor a parameter is on this rank."""

    kind: Kind
    global_shape: tuple[int, ...]
    """Of the full tensor, without padding."""
    local_shape: tuple[int, ...]
    """Of the parameter (ZeRO stage 3 empties it, so it is written down here), padding included."""
    dim: int | None
    """Along which the tensor is split over tensor-parallel ranks; None: every rank holds it whole."""
    global_offset: int
    """First index of this rank along dim."""

    @property
    def length(self) -> int:
        """Indices along dim that are not padding."""
        if self.dim is None:
            return self.global_shape[0]
        return max(0, min(self.local_shape[self.dim], self.global_shape[self.dim] - self.global_offset))


@dataclass(frozen=True)
class Shard(Partition):
    """A parameter of this rank, with the canonical name of the full tensor that it is a part of."""

    name: str
    parameter: nn.Parameter

    def of(self, full: torch.Tensor) -> torch.Tensor:
        """This rank's part of the full tensor, zeros where it is padding."""
        if full.shape != self.global_shape:
            raise ValueError(f"{self.name} has shape {tuple(full.shape)}; this model needs {self.global_shape}.")
        if self.dim is None:
            return full
        part = full.narrow(self.dim, min(self.global_offset, self.global_shape[self.dim]), self.length)
        if part.shape == self.local_shape:
            return part
        padded = full.new_zeros(self.local_shape)
        padded.narrow(self.dim, 0, self.length).copy_(part)
        return padded


def place(
    parameter: nn.Parameter, kind: Kind, group: ProcessGroup, dim: int | None = None, size: int | None = None
) -> Partition:
    """Writes into a new parameter which part of a full tensor it is, and returns that.

    group: the tensor-parallel ranks. dim: along which each of them has a part, as large as this one; None: each has
    all. size: indices of the full tensor along dim where the parts hold more (padding, at the end); by default, their
    sum. DeepSpeed looks for the mark of what is split: a wrong one gives a silently wrong gradient norm.
    """
    local, shape, offset = tuple(parameter.shape), list(parameter.shape), 0
    if dim is not None:
        shape[dim] = size or local[dim] * group.size()
        offset = local[dim] * group.rank()
    partition = Partition(kind, tuple(shape), local, dim, offset)
    parameter.partition = partition
    parameter.tensor_model_parallel = dim is not None
    return partition


def shards(model: nn.Module) -> list[Shard]:
    """The parameters of this rank, in the model's order."""
    return [Shard(**vars(p.partition), name=canonical_name(n), parameter=p) for n, p in model.named_parameters()]


def canonical_name(name: str) -> str:
    """Upstream's name for one of `Iberis`'s parameters."""
    if name in _WHOLE:
        return _WHOLE[name]
    match = re.fullmatch(r"decoder\.layers\.(\d+)\.(self_attention|mlp)\.(\w+)\.weight", name)
    assert match, name
    layer, part, module = match.groups()
    return f"transformer.h.{layer}.{'mlp' if part == 'mlp' else 'attn'}.{_LAYERS[module]}.weight"
