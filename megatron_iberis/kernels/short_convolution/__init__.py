"""SLC2's mixing: gate, short causal convolution, second gate (`gated_short_convolution`).

`gated_short_convolution_step` is that of one token of each of several sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Literal, TypeAlias, overload

import torch

from megatron_iberis.kernels.short_convolution import native, portable
from megatron_iberis.kernels.triton_found import has_triton

Before: TypeAlias = torch.Tensor | Callable[[torch.Tensor], torch.Tensor]
"""The convolution's K-1 inputs before a chunk's, [K-1, B, E], or what makes them of the chunk's own [T, B, E]."""


def implementation(device: str, dtype: torch.dtype = torch.float32) -> ModuleType:
    """What mixes whole rows in training there; device: a type, as "cpu"."""
    if dtype not in (torch.float32, torch.bfloat16):
        return portable
    if device == "cuda" and has_triton():
        from megatron_iberis.kernels.short_convolution import triton  # not to be imported where there is none

        return triton
    return native if device == "cpu" else portable


@overload
def gated_short_convolution(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    before: Before | None = None,
    positions: torch.Tensor | None = None,
    return_tail: Literal[False] = False,
    norm_eps: float | None = None,
) -> torch.Tensor: ...


@overload
def gated_short_convolution(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    before: Before | None = None,
    positions: torch.Tensor | None = None,
    *,
    return_tail: Literal[True],
) -> tuple[torch.Tensor, torch.Tensor]: ...


def gated_short_convolution(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    before: Before | None = None,
    positions: torch.Tensor | None = None,
    return_tail: bool = False,
    norm_eps: float | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """b * SiLU(conv(u)) with u = SiLU(SiLU(alpha) (x) a) * x, causal over T, in Megatron's order.

    x, b: [T, B, E]; alpha: [T, B, H]; a: [T, B, E/H]; weight: [E, 1, K], tap K-1 is the current token. Returns
    [T, B, E]. Equal to `reference.gated_short_convolution` up to rounding.
    norm_eps: given, what comes out is divided by its RMS over E, sqrt(mean(y^2) + norm_eps); not with return_tail.
    before: what precedes the chunk; zeros by default. positions: each token's place in its document, int64 [T, B];
    given these, none looks back into another document. return_tail: also the last K-1 inputs u [K-1, B, E], those
    before the chunk among them where it is shorter: `before` of the chunk that follows.
    """
    if return_tail:  # decoders, whose steps of single tokens round in bf16 where torch's operations do
        assert norm_eps is None
        return portable.with_tail(x, alpha, a, b, weight, before, positions)
    chosen = implementation(x.device.type, x.dtype)
    mixed: torch.Tensor = chosen.gated_short_convolution(x, alpha, a, b, weight, before, positions, norm_eps)
    return mixed


def gated_short_convolution_step(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    inputs: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """What `gated_short_convolution` gives for the next token of each of N sequences, without gradients.

    x, b: [N, E]; alpha: [N, H]; a: [N, E/H]; weight: [E, 1, K]; inputs: [K-1, slots, E], each sequence's last inputs
    in its slot, which move on by one, in place; slots: int64 [N], no two the same. Returns [N, E]. On a CPU a token's
    result is the same bits whatever the others and the number of threads.
    """
    chosen = native if x.is_cpu and x.dtype in (torch.float32, torch.bfloat16) else portable
    return chosen.gated_short_convolution_step(x, alpha, a, b, weight, inputs, slots)
