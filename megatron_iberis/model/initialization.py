"""The start of a model: the same full tensors whatever the layout, each from a seed of its own.

* Linear: normal, std = min(1, sqrt(fan_out / fan_in)) / sqrt(fan_in). Embedding: normal, std 1.
* Head and every c_proj: zero, so that each block starts as the identity.
* Convolution: uniform in +-1 / sqrt(K), torch's default. Upstream leaves it uninitialised; with zero taps its
  SLC2 layers never get a gradient.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping

import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.errors import InputError
from megatron_iberis.model.iberis import Iberis
from megatron_iberis.model.parameters import Shard
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.third_party import prepare_megatron


class InitialWeights(Mapping[str, torch.Tensor]):
    """The full tensors of a new model, made when they are asked for; they depend on the seed and their names."""

    def __init__(self, shards: Iterable[Shard], seed: int) -> None:
        self._shards, self._seed = {shard.name: shard for shard in shards}, seed

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, name: str) -> torch.Tensor:
        shard = self._shards[name]
        if shard.kind == "unembedding" or name.endswith(".c_proj.weight"):
            return torch.zeros(shard.global_shape)
        digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        if shard.kind == "convolution":
            bound = 1 / math.sqrt(shard.global_shape[-1])
            return (torch.rand(shard.global_shape, generator=generator) * 2 - 1) * bound
        std = 1.0
        if shard.kind == "matrix":
            fan_out, fan_in = shard.global_shape
            std = min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)
        return torch.randn(shard.global_shape, generator=generator) * std


def fill_parameters(shards: Iterable[Shard], full: Mapping[str, torch.Tensor]) -> None:
    """Fills this rank's parameters from full tensors by canonical name.

    Raises InputError that names what is missing, unknown or of another shape.
    """
    own = {shard.name: shard for shard in shards}
    missing, unknown = sorted(own.keys() - full.keys()), sorted(full.keys() - own.keys())
    if missing or unknown:
        raise InputError(
            f"these weights are of another model: {', '.join((missing or unknown)[:3])} "
            f"{'missing' if missing else 'unknown'}; check model.depth and model.slc_rate."
        )
    with torch.no_grad():
        for name, shard in own.items():
            shard.parameter.copy_(shard.of(full[name]))


def build_model(
    config: ModelConfig, groups: ParallelGroups, sequence_parallel: bool = False, recompute: bool = False
) -> Iberis:
    """This rank's part of a new model, its parameters still to be filled."""
    prepare_megatron()
    return Iberis(config, groups, sequence_parallel, recompute)
