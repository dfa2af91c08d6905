"""SLC2's mixing in Megatron's order, without a transpose: the convolution is a sum of K shifted products."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def gated_short_convolution(
    x: torch.Tensor, alpha: torch.Tensor, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """As `reference.gated_short_convolution`: x, b [T, B, E], alpha [T, B, H], a [T, B, E/H] -> [T, B, E]."""
    outer = F.silu(alpha).unsqueeze(-1) * a.unsqueeze(-2)  # [T, B, H, E/H]
    u = F.silu(outer.flatten(-2)) * x
    return b * F.silu(causal_convolution(u, weight))


def causal_convolution(u: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Depthwise causal convolution over the first dimension: z[t] = sum_j w[j] u[t - (K-1) + j], zeros before 0.

    u: [T, B, E]; weight: [E, 1, K]. Returns [T, B, E].
    """
    time = u.shape[0]
    taps = weight.squeeze(1).unbind(-1)  # K x [E]
    padded = F.pad(u, (0, 0, 0, 0, len(taps) - 1, 0))  # [K-1 + T, B, E]
    z = taps[0] * padded[:time]
    for j, tap in enumerate(taps[1:], start=1):
        z = torch.addcmul(z, tap, padded[j : j + time])
    return z
