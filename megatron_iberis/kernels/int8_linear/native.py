"""The product on a CPU in C++ (csrc/decode/), by the best instructions that it has."""

from __future__ import annotations

from functools import cache

import torch

from megatron_iberis import _C
from megatron_iberis.kernels.cpu_threads import usable_cpus
from megatron_iberis.kernels.int8_linear.weight import Int8Weight

NAME = _C.int8_kernels()[-1]


def int8_linear(x: torch.Tensor, weight: Int8Weight, threads: int = 0, kernel: str = "") -> torch.Tensor:
    """x: [N, I] -> [N, O] of x's type.

    threads: at most so many, by default as many as this process may use; kernel: one of `_C.int8_kernels()`, by
    default the best. Neither changes a bit of the result.
    """
    wide = x.detach().to(torch.float32).contiguous()
    y = torch.empty(x.shape[0], weight.shape[0])
    weight.matrix.multiply(wide.numpy(), y.numpy(), threads or _threads(), kernel)
    return y.to(x.dtype)


@cache
def _threads() -> int:
    return usable_cpus()
