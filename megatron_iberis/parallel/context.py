"""What context parallelism has to move between ranks, each of which holds a contiguous chunk of the sequences.

Chunks are in the order of ranks. Tensors have time first, as Megatron has it; t = T / CP. All is differentiable.
Nothing here goes into a compiled graph: each chunk's graph is another, in which the compiler may put the messages in
another order, and ranks would wait for each other for ever.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region


@torch.compiler.disable
def tail_of_previous(x: torch.Tensor, length: int, group: Any) -> torch.Tensor:
    """The last `length` steps of the chunk before this rank's; zeros on the first. [t, ...] -> [length, ...]."""
    tail: torch.Tensor = _TailOfPrevious.apply(x[x.shape[0] - length :], group)
    return tail


@torch.compiler.disable
def split_heads(x: torch.Tensor, group: Any) -> torch.Tensor:
    """All heads of a chunk -> a share of the heads of the whole sequence. [t, B, h, D] -> [T, B, h / CP, D]."""
    shared: torch.Tensor = _SplitHeads.apply(x, group)
    return shared


@torch.compiler.disable
def join_heads(x: torch.Tensor, group: Any) -> torch.Tensor:
    """The inverse of `split_heads`: [T, B, h / CP, D] -> [t, B, h, D]."""
    joined: torch.Tensor = _JoinHeads.apply(x, group)
    return joined


@torch.compiler.disable
def all_chunks(x: torch.Tensor, group: Any) -> torch.Tensor:
    """The whole sequence. [t, ...] -> [T, ...]; the backward pass sums what the ranks made of each chunk."""
    whole: torch.Tensor = gather_from_sequence_parallel_region(x, group=group)
    return whole


def sum_of_chunks(x: torch.Tensor, group: Any) -> torch.Tensor:
    """The sum of what all chunks have, of which each rank's backward pass takes its own chunk's part."""
    if dist.get_world_size(group) == 1:
        return x
    total: torch.Tensor = _SumOfChunks.apply(x, group)
    return total


class _SumOfChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any) -> torch.Tensor:
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0], None


class _TailOfPrevious(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tail: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return _shifted(tail, group, -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _shifted(grads[0], ctx.group, 1), None


def _shifted(x: torch.Tensor, group: Any, by: int) -> torch.Tensor:
    """What the rank `by` places further on has; zeros where there is none. The messages are a few steps long."""
    size, source = group.size(), group.rank() + by
    everyone = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(size)]
    dist.all_gather(everyone, x.contiguous(), group=group)
    return everyone[source] if 0 <= source < size else torch.zeros_like(x)


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return _split(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _join(grads[0], ctx.group), None


class _JoinHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return _join(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _split(grads[0], ctx.group), None


def _split(x: torch.Tensor, group: Any) -> torch.Tensor:
    parts = x.unflatten(2, (dist.get_world_size(group), -1)).permute(2, 0, 1, 3, 4)  # [CP, t, B, h/CP, D]
    return _all_to_all(parts, group).flatten(0, 1)  # a part came from each chunk, in order: [T, B, h/CP, D]


def _join(x: torch.Tensor, group: Any) -> torch.Tensor:
    parts = x.unflatten(0, (dist.get_world_size(group), -1))  # [CP, t, B, h/CP, D]
    return _all_to_all(parts, group).permute(1, 2, 0, 3, 4).flatten(2, 3)  # [t, B, h, D]


def _all_to_all(parts: torch.Tensor, group: Any) -> torch.Tensor:
    sent = parts.contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    return received
