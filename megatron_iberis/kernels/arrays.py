"""Tensors of a CPU as arrays for C++, in the same memory."""

from __future__ import annotations

import numpy as np
import torch


def array(x: torch.Tensor) -> np.ndarray:
    """x as it lies in memory; bf16, which numpy does not know, as uint16."""
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
