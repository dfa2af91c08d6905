"""RMS norm without a learned weight, whole or over channels that are split across tensor-parallel ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) over the last dimension. [..., E] -> [..., E]."""

    def __init__(self, config: Any, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.shape, self.eps = (hidden_size,), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.shape, eps=self.eps)


def split_rms_norm(x: torch.Tensor, channels: int, eps: float, group: Any) -> torch.Tensor:
    """RMS norm over `channels` channels of which this rank of `group` holds x's last dimension.

    [..., E / TP] -> [..., E / TP]; the sum of squares goes over the group, in forward and backward.
    """
    wide = x.float()
    squares = _SumOverGroup.apply(wide.square().sum(-1, keepdim=True), group)
    return (wide * torch.rsqrt(squares / channels + eps)).to(x.dtype)


class _SumOverGroup(torch.autograd.Function):
    """All-reduce whose result feeds different work on each rank: the backward sums the gradients too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = grads[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None
