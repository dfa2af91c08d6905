"""Linear layers with weights in bf16, which a CPU reads once for a few rows: what decoding spends its time on."""

from __future__ import annotations

import torch

from megatron_iberis.kernels.bf16_linear import native, portable

MOST_ROWS = 8
"""More rows go by torch, which has the better product for many of them."""


def bf16_linear(x: torch.Tensor, weight: torch.Tensor, relu_squared: bool = False) -> torch.Tensor:
    """x W', or max(x W', 0)^2, without gradients, summed in fp32.

    x: bf16 [N, I]; weight: bf16 [O, I]; returns bf16 [N, O].

    On a CPU and for up to MOST_ROWS rows, a row's result is the same bits whatever the other rows and the number of
    threads. Equal to `reference.bf16_linear` up to rounding.
    """
    implementation = native if x.is_cpu and x.shape[0] <= MOST_ROWS else portable
    return implementation.bf16_linear(x, weight, relu_squared=relu_squared)
