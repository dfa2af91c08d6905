"""Which part of which full tensor lies where in the flat tensors that DeepSpeed gives to the optimizer.

ZeRO hands an optimizer one long fp32 vector a parameter group (stage 3: a sub-group), this rank's partition of
all its parameters; without ZeRO it is handed the parameters themselves. `flat_layout` reads, for each such
tensor, the runs of canonical tensors in it. Muon and the checkpoints work on that alone, whatever the stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from megatron_iberis.model.parameters import Shard


@dataclass(frozen=True)
class Piece:
    """`length` elements of a shard, flattened, from `start`, lying in a flat tensor from `flat_start`."""

    name: str
    start: int
    length: int
    flat_start: int


@dataclass(frozen=True)
class FlatTensor:
    """A tensor as the optimizer sees it (fp32, one-dimensional under ZeRO), and what is in it.

    What no piece covers is ZeRO's padding.
    """

    tensor: torch.Tensor
    pieces: tuple[Piece, ...]


def flat_layout(engine: Any, shards: Iterable[Shard]) -> list[FlatTensor]:
    """The optimizer's tensors on this rank, in the optimizer's order, for any ZeRO stage."""
    names = {id(shard.parameter): shard.name for shard in shards}
    optimizer = engine.optimizer
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        return _stage3(optimizer, names)
    if hasattr(optimizer, "round_robin_bit16_groups"):
        return _stage1_and_2(optimizer, names)
    if hasattr(optimizer, "fp32_groups_flat_partition"):
        return _bf16_stage1(optimizer, names)
    return [
        FlatTensor(p, (Piece(names[id(p)], 0, p.numel(), 0),))
        for group in optimizer.param_groups
        for p in group["params"]
    ]


def _stage3(optimizer: Any, names: dict[int, str]) -> list[FlatTensor]:
    """Every parameter is cut into equal partitions, one a rank; a flat tensor strings this rank's together."""
    tensors = []
    for flat, parameters in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
        pieces, position = [], 0
        for p in parameters:
            size = p.partition_numel()
            start = size * torch.distributed.get_rank(group=p.ds_process_group)
            length = max(0, min(size, p.ds_numel - start))
            if length:
                pieces.append(Piece(names[id(p)], start, length, position))
            position += size
        tensors.append(FlatTensor(flat, tuple(pieces)))
    return tensors


def _stage1_and_2(optimizer: Any, names: dict[int, str]) -> list[FlatTensor]:
    """All parameters of a group are strung together, then the whole is cut into equal partitions."""
    tensors = []
    for i, flat in enumerate(optimizer.single_partition_of_fp32_groups):
        first = flat.numel() * torch.distributed.get_rank(group=optimizer.real_dp_process_group[i])
        parameters, offsets = optimizer.round_robin_bit16_groups[i], optimizer.round_robin_bit16_offsets[i]
        tensors.append(FlatTensor(flat, _cut(parameters, offsets, first, flat.numel(), names)))
    return tensors


def _bf16_stage1(optimizer: Any, names: dict[int, str]) -> list[FlatTensor]:
    """As stage 1, in the class that DeepSpeed takes for bf16 with fp32 gradient sums."""
    tensors = []
    for i, flat in enumerate(optimizer.fp32_groups_flat_partition):
        first = flat.numel() * torch.distributed.get_rank(group=optimizer.real_dp_process_group[i])
        offsets, position = [], 0
        for p in optimizer.bf16_groups[i]:
            offsets.append(position)
            position += p.numel()
        tensors.append(FlatTensor(flat, _cut(optimizer.bf16_groups[i], offsets, first, flat.numel(), names)))
    return tensors


def _cut(
    parameters: list[nn.Parameter], offsets: list[int], first: int, size: int, names: dict[int, str]
) -> tuple[Piece, ...]:
    """The pieces of parameters, lying at offsets, that fall into [first, first + size)."""
    pieces = []
    for p, offset in zip(parameters, offsets, strict=True):
        begin, end = max(offset, first), min(offset + p.numel(), first + size)
        if begin < end:
            pieces.append(Piece(names[id(p)], begin - offset, end - begin, begin - first))
    return tuple(pieces)
