"""Which part of which full tensor lies where in the flat tensors that DeepSpeed gives to the optimizer.

ZeRO hands an optimizer one long fp32 vector a parameter group (stage 3: a sub-group), this rank's partition of
all its parameters; without ZeRO it is handed the parameters themselves. `flat_layout` reads, for each such
tensor, the runs of canonical tensors in it. Muon and the checkpoints work on that alone, whatever the stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from megatron_iberis.model.parameters import Kind, Shard


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
    kind: Kind
    """All parameters in a tensor are of one kind, since each kind is a parameter group."""
    pieces: tuple[Piece, ...]


def fill_pieces(
    flat: torch.Tensor, pieces: Iterable[Piece], shards: Mapping[str, Shard], full: Mapping[str, torch.Tensor]
) -> None:
    """Writes this rank's pieces of full tensors, given by canonical name, into a flat tensor."""
    for piece in pieces:
        part = shards[piece.name].of(full[piece.name]).reshape(-1)[piece.start : piece.start + piece.length]
        flat.view(-1)[piece.flat_start : piece.flat_start + piece.length].copy_(part)


def flat_layout(optimizer: Any, shards: Iterable[Shard]) -> list[FlatTensor]:
    """The tensors that DeepSpeed's `optimizer` updates on this rank, in its order, for any ZeRO stage."""
    by_id = {id(shard.parameter): shard for shard in shards}
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        return _stage3(optimizer, by_id)
    if hasattr(optimizer, "round_robin_bit16_groups"):
        return _stage1_and_2(optimizer, by_id)
    if hasattr(optimizer, "fp32_groups_flat_partition"):
        return _bf16_stage1(optimizer, by_id)
    return [
        FlatTensor(p, by_id[id(p)].kind, (Piece(by_id[id(p)].name, 0, p.numel(), 0),))
        for group in optimizer.param_groups
        for p in group["params"]
    ]


def _stage3(optimizer: Any, shards: dict[int, Shard]) -> list[FlatTensor]:
    """Every parameter is cut into equal partitions, one a rank; a flat tensor strings this rank's together."""
    tensors = []
    for flat, parameters in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
        pieces, position = [], 0
        for p in parameters:
            size = p.partition_numel()
            start = size * torch.distributed.get_rank(group=p.ds_process_group)
            length = max(0, min(size, p.ds_numel - start))
            if length:
                pieces.append(Piece(shards[id(p)].name, start, length, position))
            position += size
        tensors.append(FlatTensor(flat, shards[id(parameters[0])].kind, tuple(pieces)))
    return tensors


def _stage1_and_2(optimizer: Any, shards: dict[int, Shard]) -> list[FlatTensor]:
    """All parameters of a group are strung together, then the whole is cut into equal partitions."""
    tensors = []
    for i, flat in enumerate(optimizer.single_partition_of_fp32_groups):
        first = flat.numel() * torch.distributed.get_rank(group=optimizer.real_dp_process_group[i])
        parameters, offsets = optimizer.round_robin_bit16_groups[i], optimizer.round_robin_bit16_offsets[i]
        tensors.append(_cut(flat, parameters, offsets, first, shards))
    return tensors


def _bf16_stage1(optimizer: Any, shards: dict[int, Shard]) -> list[FlatTensor]:
    """As stage 1, in the class that DeepSpeed takes for bf16 with fp32 gradient sums."""
    tensors = []
    for i, flat in enumerate(optimizer.fp32_groups_flat_partition):
        first = flat.numel() * torch.distributed.get_rank(group=optimizer.real_dp_process_group[i])
        offsets, position = [], 0
        for p in optimizer.bf16_groups[i]:
            offsets.append(position)
            position += p.numel()
        tensors.append(_cut(flat, optimizer.bf16_groups[i], offsets, first, shards))
    return tensors


def _cut(
    flat: torch.Tensor, parameters: list[nn.Parameter], offsets: list[int], first: int, shards: dict[int, Shard]
) -> FlatTensor:
    """The pieces of parameters, lying at offsets, that fall into the window of the flat tensor from `first`."""
    pieces = []
    for p, offset in zip(parameters, offsets, strict=True):
        begin, end = max(offset, first), min(offset + p.numel(), first + flat.numel())
        if begin < end:
            pieces.append(Piece(shards[id(p)].name, begin - offset, end - begin, begin - first))
    return FlatTensor(flat, shards[id(parameters[0])].kind, tuple(pieces))
