"""SLC2's mixing written out, with torch's own convolution, as the oracle for the fast versions."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def gated_short_convolution(
    x: torch.Tensor, alpha: torch.Tensor, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """b * SiLU(conv(SiLU(SiLU(alpha) (x) a) * x)), causal over T.

    x, b: [T, B, E]; alpha: [T, B, H]; a: [T, B, E/H]; weight: [E, 1, K], tap K-1 is the current token.
    The outer product is head-major: channel h * E/H + d. Returns [T, B, E].
    """
    time = x.shape[0]
    outer = F.silu(alpha).unsqueeze(-1) * a.unsqueeze(-2)  # [T, B, H, E/H]
    u = F.silu(outer.flatten(-2)) * x
    kernel = weight.shape[-1]
    channels_first = u.permute(1, 2, 0)  # [B, E, T]
    z = F.conv1d(channels_first, weight, padding=kernel - 1, groups=weight.shape[0])[..., :time]
    return b * F.silu(z.permute(2, 0, 1))
