"""Linear layers with int8 weights in groups, for a few rows at a time: what decoding spends its time on.

* `quantize`: a weight matrix as int8, about 1.06 bytes a weight.
* `int8_linear`: x times its transpose; the weights are read once for up to 16 rows.
"""

from __future__ import annotations

import torch

from megatron_iberis.kernels.int8_linear import native, portable
from megatron_iberis.kernels.int8_linear.weight import Int8Weight, quantize

__all__ = ["Int8Weight", "int8_linear", "quantize"]


def int8_linear(x: torch.Tensor, weight: Int8Weight, relu_squared: bool = False) -> torch.Tensor:
    """x W', or max(x W', 0)^2, without gradients.

    x: [N, I] on the weight's device, fp32 or narrower; returns [N, O] of x's type.

    On a CPU a row's result is the same bits whatever the other rows and the number of threads; a row with an infinity
    or a NaN in it is NaN there. Equal to `reference.int8_linear` up to rounding.
    """
    return (native if x.is_cpu else portable).int8_linear(x, weight, relu_squared=relu_squared)
