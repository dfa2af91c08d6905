"""SLC2's mixing in Megatron's order, without a transpose: the convolution is a sum of K shifted products."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

NAME = "portable"


def gated_short_convolution(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    before: torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None,
    positions: torch.Tensor | None,
    norm_eps: float | None = None,
) -> torch.Tensor:
    """x, b [T, B, E], alpha [T, B, H], a [T, B, E/H] -> [T, B, E]."""
    mixed, _tail = with_tail(x, alpha, a, b, weight, before, positions)
    return mixed if norm_eps is None else F.rms_norm(mixed, mixed.shape[-1:], eps=norm_eps)


def with_tail(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    before: torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None,
    positions: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, and the last inputs [K-1, B, E], as a view."""
    u = convolution_inputs(x, alpha, a)
    past = before(u) if callable(before) else before
    kernel = weight.shape[-1]
    padded = F.pad(u, (0, 0, 0, 0, kernel - 1, 0)) if past is None else torch.cat((past, u))  # [K-1 + T, B, E]
    return b * F.silu(_causal_convolution(padded, weight, positions)), padded[u.shape[0] :]


def past_of(
    before: torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None,
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    kernel: int,
) -> torch.Tensor | None:
    """`before` as a tensor [K-1, B, E]: what makes it is given the last K-1 inputs, all that the next chunk sees."""
    if not callable(before):
        return before
    last = max(0, x.shape[0] - (kernel - 1))
    return before(convolution_inputs(x[last:], alpha[last:], a[last:]))


def convolution_inputs(x: torch.Tensor, alpha: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """x [T, B, E], alpha [T, B, H], a [T, B, E/H] -> u [T, B, E]."""
    outer = F.silu(alpha).unsqueeze(-1) * a.unsqueeze(-2)  # [T, B, H, E/H]
    return F.silu(outer.flatten(-2)) * x


def gated_short_convolution_step(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    inputs: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """x, b [N, E], alpha [N, H], a [N, E/H], inputs [K-1, slots, E], slots int64 [N] -> [N, E]."""
    x, alpha, a, b = (y.unsqueeze(0) for y in (x, alpha, a, b))
    mixed, tail = with_tail(x, alpha, a, b, weight, inputs[:, slots], None)
    inputs.index_copy_(1, slots, tail)
    return mixed[0]


def _causal_convolution(padded: torch.Tensor, weight: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """Depthwise over the first dimension: z[t] = sum_j w[j] padded[t + j]. [K-1 + T, B, E] -> [T, B, E].

    positions: int64 [T, B], where z[t] sums over the last positions[t] + 1 taps only.
    """
    taps = weight.squeeze(1).unbind(-1)  # K x [E]
    time = padded.shape[0] - (len(taps) - 1)

    def seen(j: int) -> torch.Tensor:
        back = len(taps) - 1 - j
        if positions is None or back == 0:
            return padded[j : j + time]
        return padded[j : j + time] * (positions >= back).unsqueeze(-1)

    z = taps[0] * seen(0)
    for j, tap in enumerate(taps[1:], start=1):
        z = torch.addcmul(z, tap, seen(j))
    return z
