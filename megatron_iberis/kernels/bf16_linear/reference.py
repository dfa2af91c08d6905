"""The product in fp64, as the oracle for the fast versions."""

from __future__ import annotations

import torch


def bf16_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x: [N, I]; weight: [O, I] -> fp64 [N, O]."""
    return x.double() @ weight.double().t()
