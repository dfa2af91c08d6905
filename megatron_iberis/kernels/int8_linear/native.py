"""The product on a CPU in C++ (csrc/decode/), by the best instructions that it has."""

from __future__ import annotations

import numpy as np
import torch

from megatron_iberis import _C
from megatron_iberis.kernels.cpu_threads import default_threads
from megatron_iberis.kernels.int8_linear.weight import Int8Weight

NAME = _C.int8_kernels()[-1]


def int8_linear(
    x: torch.Tensor, weight: Int8Weight, threads: int = 0, kernel: str = "", relu_squared: bool = False
) -> torch.Tensor:
    """x: [N, I] -> [N, O] of x's type.

    threads: at most so many, by default as many as this process may use; kernel: one of `_C.int8_kernels()`, by
    default the best. Neither changes a bit of the result.
    """
    narrow = x.dtype != torch.float32  # asked, for conversions that have nothing to do cost more than this call
    wide = (x.float() if narrow else x).contiguous()
    y = np.empty((x.shape[0], weight.shape[0]), dtype=np.float32)
    weight.matrix.multiply(wide.numpy(force=x.requires_grad), y, threads or default_threads(), kernel, relu_squared)
    found = torch.from_numpy(y)
    return found.to(x.dtype) if narrow else found
