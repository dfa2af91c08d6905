"""The product wherever torch runs: a part of the weights at a time is made wide again."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from megatron_iberis.kernels.int8_linear.weight import BLOCK, Int8Weight

NAME = "portable"
_PART = 1 << 24  # weights that are wide at a time


def int8_linear(x: torch.Tensor, weight: Int8Weight, relu_squared: bool = False) -> torch.Tensor:
    """x: [N, I] -> [N, O] of x's type, in whose precision the weights are taken."""
    outputs, inputs = weight.shape
    blocks = max(1, _PART // max(1, BLOCK * inputs))
    parts = []
    for first in range(0, weight.values.shape[0], blocks):
        some, rows = slice(first, first + blocks), min(blocks * BLOCK, outputs - first * BLOCK)
        part = Int8Weight(weight.values[some], weight.scales[some], (rows, inputs))
        parts.append(F.linear(x.detach(), part.dequantized().to(x.dtype)))
    y = torch.cat(parts, dim=1) if parts else x.new_empty(x.shape[0], 0)
    return y.relu_().square_() if relu_squared else y
