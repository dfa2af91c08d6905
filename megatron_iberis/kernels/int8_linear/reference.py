"""The product with the matrix that the int8 weights stand for, in fp64, as the oracle for the fast versions."""

from __future__ import annotations

import torch

from megatron_iberis.kernels.int8_linear.weight import Int8Weight


def int8_linear(x: torch.Tensor, weight: Int8Weight) -> torch.Tensor:
    """x: [N, I] -> fp64 [N, O]."""
    return x.double() @ weight.dequantized().double().t()
