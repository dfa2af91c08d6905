"""SLC2's mixing on a CPU in C++: of whole rows (csrc/training/mixing.h), of single tokens
(csrc/decode/convolution_step.h).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from megatron_iberis import _C
from megatron_iberis.kernels.arrays import array
from megatron_iberis.kernels.cpu_threads import default_threads
from megatron_iberis.kernels.short_convolution.portable import past_of

NAME = "native"


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
    """x, b [T, B, E], alpha [T, B, H], a [T, B, E/H], weight [E, 1, K], all fp32 or all bf16 -> [T, B, E].

    In bf16 only the result is rounded. The gradients, too, are the same bits in any number of threads.
    """
    past = past_of(before, x, alpha, a, weight.shape[-1])
    mixed: torch.Tensor = _Mixing.apply(norm_eps, x, alpha, a, b, weight, past, positions)
    return mixed


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norm_eps: float | None, *given: torch.Tensor | None) -> torch.Tensor:
        *mixed, weight, past, positions = (None if each is None else each.contiguous() for each in given)
        assert weight is not None
        taps = weight.squeeze(1).t().contiguous()  # [K, E]
        tensors = (*mixed, taps, past, positions)
        ctx.save_for_backward(*tensors)
        ctx.norm_eps = norm_eps
        mixed_rows: torch.Tensor = _mix(*tensors, norm_eps)
        return mixed_rows

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *mixed, by_taps = _mix_backward(*ctx.saved_tensors, ctx.norm_eps, grads[0].contiguous())
        by_past = mixed.pop() if len(mixed) == 5 else None
        return None, *mixed, by_taps.t().unsqueeze(1), by_past, None


# Operators of torch's, so that fake tensors go through them and a compiled graph can hold them.
@torch.library.custom_op("iberis::mix", mutates_args=(), device_types="cpu")
def _mix(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    taps: torch.Tensor,
    past: torch.Tensor | None,
    positions: torch.Tensor | None,
    norm_eps: float | None,
) -> torch.Tensor:
    y = torch.empty_like(x)
    _C.mix(*_arguments(x, alpha, a, b, taps, past, positions, norm_eps, y))
    return y


@_mix.register_fake
def _(x: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("iberis::mix_backward", mutates_args=(), device_types="cpu")
def _mix_backward(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    taps: torch.Tensor,
    past: torch.Tensor | None,
    positions: torch.Tensor | None,
    norm_eps: float | None,
    d_y: torch.Tensor,
) -> list[torch.Tensor]:
    """The gradients of x, alpha, a, b, of past if there is one, and of taps."""
    gradients = [None if each is None else torch.empty_like(each) for each in (x, alpha, a, b, past)]
    tiles = -(-x.shape[0] // _C.mixing_tile_steps()) * x.shape[1]
    by_taps = torch.empty(tiles, *taps.shape)
    _C.mix_backward(*_arguments(x, alpha, a, b, taps, past, positions, norm_eps, d_y, *gradients, by_taps))
    return [*(each for each in gradients if each is not None), by_taps.sum(0).to(taps.dtype)]


@_mix_backward.register_fake
def _(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    taps: torch.Tensor,
    past: torch.Tensor | None,
    *_: object,
) -> list[torch.Tensor]:
    return [torch.empty_like(each) for each in (x, alpha, a, b, past, taps) if each is not None]


def _arguments(*given: torch.Tensor | float | None) -> list[Any]:
    return [*(array(each) if isinstance(each, torch.Tensor) else each for each in given), torch.get_num_threads()]


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
