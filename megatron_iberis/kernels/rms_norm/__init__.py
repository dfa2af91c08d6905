"""RMS norm without a weight, for decoding: on a CPU one pass in C++, where torch takes half a dozen operations."""

from __future__ import annotations

import torch

from megatron_iberis.kernels.rms_norm import native, portable


def rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without gradients, worked out in fp32.

    x: [..., D] -> the same. A row's result is the same bits whatever the others. Equal to `reference.rms_norm` up to
    rounding.
    """
    here = x.is_cpu and x.dtype in (torch.float32, torch.bfloat16)
    return (native if here else portable).rms_norm(x, eps)
