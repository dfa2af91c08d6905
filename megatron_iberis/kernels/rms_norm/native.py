"""RMS norm on a CPU in C++ (csrc/decode/rms_norm.h)."""

from __future__ import annotations

import torch

from megatron_iberis import _C
from megatron_iberis.kernels.arrays import array
from megatron_iberis.kernels.cpu_threads import default_threads

NAME = "native"


def rms_norm(x: torch.Tensor, eps: float, threads: int = 0) -> torch.Tensor:
    """x: [..., D], fp32 or bf16 -> the same. threads: at most so many, by default as many as this process may use."""
    rows = x.reshape(x.numel() // x.shape[-1], x.shape[-1])
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    out = torch.empty(rows.shape, dtype=x.dtype)
    _C.rms_norm(array(rows), array(out), eps, threads or default_threads())
    return out.view(x.shape)
