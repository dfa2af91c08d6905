"""RMS norm written out in fp64, as the oracle for the fast versions."""

from __future__ import annotations

import torch


def rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x: [..., D] -> fp64 [..., D]."""
    wide = x.double()
    return wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt()
