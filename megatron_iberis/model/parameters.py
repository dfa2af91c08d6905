"""Canonical names, and where each rank's parameter lies in the full tensor.

The names are upstream's (nanochat's): `transformer.h.3.attn.x_proj.weight`. Initialisation, optimizer groups,
checkpoints and conversion all speak of full tensors by these names, whatever the layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from megatron_iberis.model.iberis import Iberis

Kind = Literal["matrix", "convolution", "embedding", "unembedding"]

_MIXER = {
    "linear_q": "c_q",
    "linear_k": "c_k",
    "linear_v": "c_v",
    "linear_x": "x_proj",
    "linear_alpha": "alpha_proj",
    "linear_a": "A_proj",
    "linear_b": "B_proj",
    "conv": "conv1d",
    "linear_proj": "c_proj",
}
_MLP = {"linear_fc1": "c_fc", "linear_fc2": "c_proj"}
_COLUMN = {"linear_q", "linear_k", "linear_v", "linear_x", "linear_alpha", "linear_b", "conv", "linear_fc1"}
_ROW = {"linear_proj", "linear_fc2"}


@dataclass(frozen=True)
class Shard:
    """This rank's part of a full tensor."""

    name: str
    """Canonical name of the full tensor."""
    kind: Kind
    parameter: nn.Parameter
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


def shards(model: Iberis) -> list[Shard]:
    """The parameters of this rank, in the model's order. Call before DeepSpeed takes the model."""
    return [_shard(model, name, parameter) for name, parameter in model.named_parameters()]


def mark_tensor_parallel(model: Iberis) -> None:
    """Marks split parameters as DeepSpeed looks for it: a wrong mark gives a silently wrong gradient norm."""
    for shard in shards(model):
        shard.parameter.tensor_model_parallel = shard.dim is not None


def _shard(model: Iberis, name: str, parameter: nn.Parameter) -> Shard:
    config, groups = model.config, model.groups
    canonical, module = _canonical(name)
    local = tuple(parameter.shape)
    dim: int | None = 1 if module in _ROW else 0
    if module == "linear_a" or (module in ("linear_k", "linear_v") and config.kv_heads % groups.tp_size):
        dim = None
    shape = list(local)
    if dim is not None:
        shape[dim] = local[dim] * groups.tp_size
    kind: Kind = "convolution" if module == "conv" else "matrix"
    if module in ("embedding", "head"):
        shape[0] = config.vocab_size
        kind = "embedding" if module == "embedding" else "unembedding"
    start = groups.tp_rank * local[dim] if dim is not None else 0
    return Shard(canonical, kind, parameter, tuple(shape), local, dim, start)


def _canonical(name: str) -> tuple[str, str]:
    """(canonical name, name of the module that holds it) of one of our parameter names."""
    if name == "embedding.weight":
        return "transformer.wte.weight", "embedding"
    if name == "head.weight":
        return "lm_head.weight", "head"
    match = re.fullmatch(r"decoder\.layers\.(\d+)\.(self_attention|mlp)\.(\w+)\.weight", name)
    assert match, name
    layer, place, module = match.groups()
    table, part = (_MIXER, "attn") if place == "self_attention" else (_MLP, "mlp")
    assert module in _COLUMN | _ROW | {"linear_a"}, name
    return f"transformer.h.{layer}.{part}.{table[module]}.weight", module
