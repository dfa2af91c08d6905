"""SLC2's mixing of single tokens on a CPU in C++ (csrc/decode/convolution_step.h)."""

from __future__ import annotations

import torch

from megatron_iberis import _C
from megatron_iberis.kernels.arrays import array
from megatron_iberis.kernels.cpu_threads import default_threads

NAME = "native"


def gated_short_convolution_step(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    inputs: torch.Tensor,
    slots: torch.Tensor,
    threads: int = 0,
) -> torch.Tensor:
    """x, b [N, E], alpha [N, H], a [N, E/H], inputs [K-1, slots, E], slots int64 [N] -> [N, E].

    threads: at most so many, by default as many as this process may use: it does not change a bit.
    """
    assert inputs.is_contiguous(), "they are changed in place"
    out = torch.empty(x.shape, dtype=x.dtype)
    taps = weight.squeeze(1).t()  # [K, E], as a decoder's lie in memory
    x, alpha, a, b, taps = (y if y.stride(-1) == 1 else y.contiguous() for y in (x, alpha, a, b, taps))
    _C.convolution_step(
        array(x),
        array(alpha),
        array(a),
        array(b),
        array(taps),
        array(inputs),
        array(slots),
        array(out),
        threads or default_threads(),
    )
    return out
