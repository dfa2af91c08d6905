"""SLC2's mixing in Megatron's order, without a transpose: the convolution is a sum of K shifted products."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def gated_short_convolution(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    before: Callable[[torch.Tensor], torch.Tensor] | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `reference.gated_short_convolution`: x, b [T, B, E], alpha [T, B, H], a [T, B, E/H] -> [T, B, E].

    before: given the convolution's input u [T, B, E], returns the K-1 steps before it; zeros by default.
    positions: each token's place in its document, int64 [T, B]; given these, none looks back into another document.
    """
    outer = F.silu(alpha).unsqueeze(-1) * a.unsqueeze(-2)  # [T, B, H, E/H]
    u = F.silu(outer.flatten(-2)) * x
    return b * F.silu(causal_convolution(u, weight, before(u) if before else None, positions))


def causal_convolution(
    u: torch.Tensor,
    weight: torch.Tensor,
    before: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Depthwise causal convolution over the first dimension: z[t] = sum_j w[j] u[t - (K-1) + j].

    u: [T, B, E]; weight: [E, 1, K]; before: what precedes u, [K-1, B, E], zeros by default; positions: int64 [T, B],
    where z[t] sums over the last positions[t] + 1 taps only. Returns [T, B, E].
    """
    time = u.shape[0]
    taps = weight.squeeze(1).unbind(-1)  # K x [E]
    padded = F.pad(u, (0, 0, 0, 0, len(taps) - 1, 0)) if before is None else torch.cat((before, u))  # [K-1 + T, B, E]

    def seen(j: int) -> torch.Tensor:
        back = len(taps) - 1 - j
        if positions is None or back == 0:
            return padded[j : j + time]
        return padded[j : j + time] * (positions >= back).unsqueeze(-1)

    z = taps[0] * seen(0)
    for j, tap in enumerate(taps[1:], start=1):
        z = torch.addcmul(z, tap, seen(j))
    return z
