"""The product on a CPU in C++ (csrc/decode/), by the best instructions that it has."""

from __future__ import annotations

import torch

from megatron_iberis import _C
from megatron_iberis.kernels.arrays import array
from megatron_iberis.kernels.cpu_threads import default_threads

NAME = _C.bf16_kernels()[-1]


def bf16_linear(
    x: torch.Tensor, weight: torch.Tensor, threads: int = 0, kernel: str = "", relu_squared: bool = False
) -> torch.Tensor:
    """x: [N, I]; weight: [O, I], contiguous -> [N, O].

    threads: at most so many, by default as many as this process may use; kernel: one of `_C.bf16_kernels()`, by
    default the best. Neither changes a bit of the result.
    """
    y = torch.empty(x.shape[0], weight.shape[0], dtype=torch.bfloat16)
    _C.bf16_linear(array(weight), array(x.contiguous()), array(y), threads or default_threads(), kernel, relu_squared)
    return y
