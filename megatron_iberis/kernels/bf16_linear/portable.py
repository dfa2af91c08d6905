"""The product by torch, wherever it runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F

NAME = "portable"


def bf16_linear(x: torch.Tensor, weight: torch.Tensor, relu_squared: bool = False) -> torch.Tensor:
    """x: [N, I]; weight: [O, I] -> [N, O]."""
    y = F.linear(x, weight)
    return y.relu_().square_() if relu_squared else y
