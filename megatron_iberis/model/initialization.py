"""The start of a model: the same full tensors whatever the layout, each from a seed of its own.

* Linear: normal, std = min(1, sqrt(fan_out / fan_in)) / sqrt(fan_in). Embedding: normal, std 1.
* Head and every c_proj: zero, so that each block starts as the identity.
* Convolution: uniform in +-1 / sqrt(K), torch's default. Upstream leaves it uninitialised; with zero taps its
  SLC2 layers never get a gradient.
"""

from __future__ import annotations

import hashlib
import math

import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.iberis import Iberis
from megatron_iberis.model.parameters import Shard, mark_tensor_parallel, shards
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.stand_ins import prepare_megatron


def initialize(model: Iberis, seed: int) -> None:
    """Fills every parameter; the full tensors depend on the seed and their names alone."""
    with torch.no_grad():
        for shard in shards(model):
            shard.parameter.copy_(shard.of(_initial(shard, seed)))


def load_full_tensors(model: Iberis, tensors: dict[str, torch.Tensor]) -> None:
    """Fills every parameter from full tensors by canonical name; ValueError names what is missing or unknown."""
    own = shards(model)
    missing = sorted({s.name for s in own} - tensors.keys())
    unknown = sorted(tensors.keys() - {s.name for s in own})
    if missing or unknown:
        raise ValueError(
            f"these weights are of another model: {', '.join((missing or unknown)[:3])} "
            f"{'missing' if missing else 'unknown'}; check model.depth and model.slc_rate."
        )
    with torch.no_grad():
        for shard in own:
            shard.parameter.copy_(shard.of(tensors[shard.name]))


def _initial(shard: Shard, seed: int) -> torch.Tensor:
    if shard.kind == "unembedding" or shard.name.endswith(".c_proj.weight"):
        return torch.zeros(shard.shape)
    digest = hashlib.sha256(f"{seed}/{shard.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    if shard.kind == "convolution":
        bound = 1 / math.sqrt(shard.shape[-1])
        return (torch.rand(shard.shape, generator=generator) * 2 - 1) * bound
    std = 1.0
    if shard.kind == "matrix":
        fan_out, fan_in = shard.shape
        std = min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in)
    return torch.randn(shard.shape, generator=generator) * std


def build_model(config: ModelConfig, groups: ParallelGroups, sequence_parallel: bool, seed: int) -> Iberis:
    """This rank's part of a new, initialised model, its parameters marked for DeepSpeed."""
    prepare_megatron()
    model = Iberis(config, groups, sequence_parallel)
    mark_tensor_parallel(model)
    initialize(model, seed)
    return model
