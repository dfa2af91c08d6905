"""RMS norm by torch, wherever it runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F

NAME = "portable"


def rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x: [..., D] -> the same."""
    return F.rms_norm(x, (x.shape[-1],), eps=eps)
