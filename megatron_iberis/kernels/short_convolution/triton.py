"""SLC2's mixing on a GPU, by Triton: one kernel forward, one backward; the outer product and u are never stored.

* A program has a tile of a sequence's time and goes through the heads one by one. So the gradients of alpha, which
  sum over a head's channels, and of a, which sum over the heads, are whole in one program: no atomics, the same bits
  each time. The taps' gradient is written tile by tile and summed afterwards.
* The norm: a program has whole rows, so it knows their RMS in the end and goes over what it has just stored, which
  the cache still holds. The backward pass first sums y times its gradient over each row.
* What a tile needs of its neighbours (K-1 steps before, and in the backward pass K-1 after) is worked out again.
* Offsets are in 64 bits. The inputs' strides are theirs, but for the last dimension, which is to be contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from megatron_iberis.kernels.short_convolution.portable import past_of

NAME = "triton"
TILE = 4096  # numbers of a head and a tile


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
    """x, b [T, B, E], alpha [T, B, H], a [T, B, E/H], weight [E, 1, K] -> [T, B, E].

    In bf16 only that is rounded; where there is a norm, before and after it.
    """
    past = past_of(before, x, alpha, a, weight.shape[-1])
    mixed: torch.Tensor = _Mixing.apply(norm_eps, x, alpha, a, b, weight, past, positions)
    return mixed


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norm_eps: float | None, *given: torch.Tensor | None) -> torch.Tensor:
        *mixed, weight, past, positions = given
        x, alpha, a, b = (_rows(each) for each in mixed if each is not None)
        weight, past = (None if each is None else each.contiguous() for each in (weight, past))
        tensors = (x, alpha, a, b, weight, past, positions)
        y: torch.Tensor
        y, inverse_rms = _mix(*tensors, norm_eps)
        normed = (None, None) if norm_eps is None else (y, inverse_rms)
        ctx.save_for_backward(*tensors, *normed)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *mixed, by_weight = _mix_backward(*ctx.saved_tensors, _rows(grads[0]))
        by_past = mixed.pop() if len(mixed) == 5 else None
        return None, *mixed, by_weight, by_past, None


# Operators of torch's, so that a compiled graph can hold them.
@torch.library.custom_op("iberis::mix_by_triton", mutates_args=())
def _mix(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    past: torch.Tensor | None,
    positions: torch.Tensor | None,
    norm_eps: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """y, and 1 / RMS of each row before the norm, fp32 [T, B]; without a norm [0]."""
    y, inverse_rms = _results(x, norm_eps)
    sizes = _Sizes(x, alpha, weight, past)
    strides = _strides(x, alpha, a, b, y, positions)
    with torch.cuda.device_of(x):
        _forward[sizes.grid(x.shape[0])](
            *(x, alpha, a, b, weight, past, positions, y, inverse_rms, norm_eps or 0.0),
            *strides,
            *sizes.arguments,
            norm_eps is not None,
        )
    return y, inverse_rms


def _results(x: torch.Tensor, norm_eps: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (0,) if norm_eps is None else x.shape[:2]
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(shape, dtype=torch.float32)


@_mix.register_fake
def _(x: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return _results(x, rest[-1])


@torch.library.custom_op("iberis::mix_backward_by_triton", mutates_args=())
def _mix_backward(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    past: torch.Tensor | None,
    positions: torch.Tensor | None,
    y: torch.Tensor | None,
    inverse_rms: torch.Tensor | None,
    d_y: torch.Tensor,
) -> list[torch.Tensor]:
    """The gradients of x, alpha, a, b, of past if there is one, and of weight; y, inverse_rms: _mix's, if normed."""
    d_x, d_alpha, d_a, d_b, d_past = gradients = [
        None if each is None else torch.empty_like(each, memory_format=torch.contiguous_format)
        for each in (x, alpha, a, b, past)
    ]
    sizes = _Sizes(x, alpha, weight, past)
    grid = sizes.grid(x.shape[0] + sizes.before)
    by_taps = torch.empty(grid[0] * grid[1], *weight.shape[::2], dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _backward[grid](
            *(x, alpha, a, b, weight, past, positions, y, inverse_rms, d_y, d_x, d_alpha, d_a, d_b, d_past, by_taps),
            *_strides(x, alpha, a, b, d_y, positions),
            *sizes.arguments,
            triton.next_power_of_2(weight.shape[-1]),
        )
    by_weight = by_taps.sum(0).unsqueeze(1).to(weight.dtype)
    return [*(each for each in gradients if each is not None), by_weight]


@_mix_backward.register_fake
def _(
    x: torch.Tensor,
    alpha: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    weight: torch.Tensor,
    past: torch.Tensor | None,
    *_: object,
) -> list[torch.Tensor]:
    given = (x, alpha, a, b, past, weight)
    return [torch.empty_like(each, memory_format=torch.contiguous_format) for each in given if each is not None]


def _rows(x: torch.Tensor) -> torch.Tensor:
    """x with a contiguous last dimension."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(*tensors: torch.Tensor | None) -> list[int]:
    """Of time and batch, of each."""
    return [stride for x in tensors for stride in ((0, 0) if x is None else x.stride()[:2])]


class _Sizes:
    """How the work is cut, and the kernels' last arguments."""

    def __init__(self, x: torch.Tensor, alpha: torch.Tensor, weight: torch.Tensor, past: torch.Tensor | None) -> None:
        time, self.batch, heads = alpha.shape
        size, kernel = x.shape[2] // heads, weight.shape[-1]
        channels = triton.next_power_of_2(size)
        self.before = 0 if past is None else kernel - 1
        self.steps = max(1, min(TILE // channels, triton.next_power_of_2(time + self.before)))
        self.arguments = (time, self.batch, heads, size, kernel, past is not None, self.steps, channels)

    def grid(self, time: int) -> tuple[int, int]:
        return triton.cdiv(time, self.steps), self.batch


@triton.jit
def _reach(positions, t, n, p_t, p_n, time, K: tl.constexpr, PAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many steps back the convolution looks at the steps t; -1 where there is no step."""
    reach = tl.where((t >= 0) & (t < time), K - 1, -1)
    if not PAST:
        reach = tl.minimum(reach, t)
    if positions is not None:
        inside = (t >= 0) & (t < time)
        reach = tl.minimum(reach, tl.load(positions + t * p_t + n * p_n, mask=inside, other=0))
    return reach


@triton.jit
def _silu(x):  # type: ignore[no-untyped-def]
    return x * tl.sigmoid(x)


@triton.jit
def _silu_slope(x):  # type: ignore[no-untyped-def]
    sigmoid = tl.sigmoid(x)
    return sigmoid * (1.0 + x * (1.0 - sigmoid))


@triton.jit
def _load(x, t, n, channel, own, x_t, x_n, time):  # type: ignore[no-untyped-def]
    """[steps, channels], zeros outside; own: which channels there are."""
    inside = ((t >= 0) & (t < time))[:, None] & own[None, :]
    return tl.load(x + (t * x_t + n * x_n)[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _outer(alpha, a, t, n, h, d, own, al_t, al_n, a_t, a_n, time):  # type: ignore[no-untyped-def]
    gate = tl.load(alpha + t * al_t + n * al_n + h, mask=(t >= 0) & (t < time), other=0.0).to(tl.float32)
    return _silu(gate)[:, None] * _load(a, t, n, d, own, a_t, a_n, time)


@triton.jit
def _input(  # type: ignore[no-untyped-def]
    x, alpha, a, past, t, n, h, d, own, x_t, x_n, al_t, al_n, a_t, a_n, time, batch, heads, size,
    K: tl.constexpr, PAST: tl.constexpr,
):  # fmt: skip
    """u at the steps t, [steps, channels]."""
    channel = h * size + d
    u = _silu(_outer(alpha, a, t, n, h, d, own, al_t, al_n, a_t, a_n, time)) * _load(
        x, t, n, channel, own, x_t, x_n, time
    )
    if PAST:
        width = heads * size
        u += _load(past, t + (K - 1), n, channel, own, batch * width, width, K - 1)  # zeros where u is not
    return u


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x, alpha, a, b, weight, past, positions, y, inverse_rms, norm_eps,
    x_t, x_n, al_t, al_n, a_t, a_n, b_t, b_n, y_t, y_n, p_t, p_n, time, batch, heads, size,
    K: tl.constexpr, PAST: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0).to(tl.int64) * STEPS + tl.arange(0, STEPS)
    d = tl.arange(0, CHANNELS)
    own = d < size
    reach = _reach(positions, t, n, p_t, p_n, time, K, PAST)
    squares = tl.zeros((STEPS,), tl.float32)
    for h in range(heads):
        channel = h * size + d
        z = tl.zeros((STEPS, CHANNELS), tl.float32)
        for back in tl.static_range(K):
            u = _input(
                x, alpha, a, past, t - back, n, h, d, own, x_t, x_n, al_t, al_n, a_t, a_n, time, batch, heads, size,
                K, PAST,
            )  # fmt: skip
            tap = tl.load(weight + channel * K + (K - 1 - back), mask=own, other=0.0).to(tl.float32)
            z += tl.where((reach >= back)[:, None], tap[None, :] * u, 0.0)
        mixed = _load(b, t, n, channel, own, b_t, b_n, time) * _silu(z)
        inside = (t < time)[:, None] & own[None, :]
        tl.store(y + (t * y_t + n * y_n)[:, None] + channel[None, :], mixed.to(y.dtype.element_ty), mask=inside)
        squares += tl.sum(mixed * mixed, 1)
    if NORM:
        scale = 1.0 / tl.sqrt(squares / (heads * size) + norm_eps)
        tl.store(inverse_rms + t * batch + n, scale, mask=t < time)
        tl.debug_barrier()  # what other threads of this program have stored is read now
        for h in range(heads):
            channel = h * size + d
            inside = (t < time)[:, None] & own[None, :]
            normed = scale[:, None] * _load(y, t, n, channel, own, y_t, y_n, time)
            tl.store(y + (t * y_t + n * y_n)[:, None] + channel[None, :], normed.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _products(  # type: ignore[no-untyped-def]
    y, d_y, t, n, d, own, y_t, y_n, time, batch, heads, size, K: tl.constexpr, KS: tl.constexpr
):  # fmt: skip
    """The mean of y d_y over each row that a tile looks at: [steps, KS], of the step t + back in column back."""
    width = heads * size
    column = tl.arange(0, KS)
    sums = tl.zeros((t.shape[0], KS), tl.float32)
    for h in range(heads):
        channel = h * size + d
        for back in tl.static_range(K):
            rows = _load(y, t + back, n, channel, own, batch * width, width, time)
            rows *= _load(d_y, t + back, n, channel, own, y_t, y_n, time)
            sums += tl.where(column[None, :] == back, tl.sum(rows, 1)[:, None], 0.0)
    return sums / width


@triton.jit
def _by_convolved(  # type: ignore[no-untyped-def]
    x, alpha, a, b, weight, past, positions, inverse_rms, product, d_y, d_b, t, n, h, d, own,
    x_t, x_n, al_t, al_n, a_t, a_n, b_t, b_n, y_t, y_n, p_t, p_n, time, batch, heads, size,
    K: tl.constexpr, PAST: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The gradient by z at the steps t, zeros where there is none; KEEP: also stores that by b."""
    channel = h * size + d
    reach = _reach(positions, t, n, p_t, p_n, time, K, PAST)
    z = tl.zeros((t.shape[0], d.shape[0]), tl.float32)
    for back in tl.static_range(K):
        u = _input(
            x, alpha, a, past, t - back, n, h, d, own, x_t, x_n, al_t, al_n, a_t, a_n, time, batch, heads, size,
            K, PAST,
        )  # fmt: skip
        tap = tl.load(weight + channel * K + (K - 1 - back), mask=own, other=0.0).to(tl.float32)
        z += tl.where((reach >= back)[:, None], tap[None, :] * u, 0.0)
    by_y = _load(d_y, t, n, channel, own, y_t, y_n, time)
    gate = _load(b, t, n, channel, own, b_t, b_n, time)
    if inverse_rms is not None:
        scale = tl.load(inverse_rms + t * batch + n, mask=(t >= 0) & (t < time), other=0.0)
        by_y = scale[:, None] * (by_y - (scale * product)[:, None] * gate * _silu(z))
    if KEEP:
        width = heads * size
        inside = ((t >= 0) & (t < time))[:, None] & own[None, :]
        place = ((t * batch + n) * width)[:, None] + channel[None, :]
        tl.store(d_b + place, (by_y * _silu(z)).to(d_b.dtype.element_ty), mask=inside)
    return by_y * gate * _silu_slope(z)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x, alpha, a, b, weight, past, positions, y, inverse_rms, d_y, d_x, d_alpha, d_a, d_b, d_past, by_taps,
    x_t, x_n, al_t, al_n, a_t, a_n, b_t, b_n, y_t, y_n, p_t, p_n, time, batch, heads, size,
    K: tl.constexpr, PAST: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, KS: tl.constexpr,
):  # fmt: skip
    tile, n = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    width = heads * size
    t = tile * STEPS + tl.arange(0, STEPS)
    if PAST:
        t -= K - 1  # the past's own gradient is worked out like the others
    d = tl.arange(0, CHANNELS)
    own = d < size
    there = (t >= 0) & (t < time)
    inside = there[:, None] & own[None, :]
    own_reach = _reach(positions, t, n, p_t, p_n, time, K, PAST)
    by_a = tl.zeros((STEPS, CHANNELS), tl.float32)
    products = tl.zeros((STEPS, KS), tl.float32)
    if inverse_rms is not None:
        products = _products(y, d_y, t, n, d, own, y_t, y_n, time, batch, heads, size, K, KS)
    for h in range(heads):
        channel = h * size + d
        by_u = tl.zeros((STEPS, CHANNELS), tl.float32)
        for back in tl.static_range(K):
            later = t + back
            product = tl.sum(tl.where(tl.arange(0, KS)[None, :] == back, products, 0.0), 1)
            by_z = _by_convolved(
                x, alpha, a, b, weight, past, positions, inverse_rms, product, d_y, d_b, later, n, h, d, own,
                x_t, x_n, al_t, al_n, a_t, a_n, b_t, b_n, y_t, y_n, p_t, p_n, time, batch, heads, size,
                K, PAST, back == 0,
            )  # fmt: skip
            tap = tl.load(weight + channel * K + (K - 1 - back), mask=own, other=0.0).to(tl.float32)
            reach = _reach(positions, later, n, p_t, p_n, time, K, PAST)
            by_u += tl.where((reach >= back)[:, None], tap[None, :] * by_z, 0.0)
            if back == 0:
                for i in tl.static_range(K):
                    u = _input(
                        x, alpha, a, past, t - i, n, h, d, own, x_t, x_n, al_t, al_n, a_t, a_n,
                        time, batch, heads, size, K, PAST,
                    )  # fmt: skip
                    sums = tl.sum(tl.where((own_reach >= i)[:, None], by_z * u, 0.0), 0)
                    place = ((tile * batch + n) * width + channel) * K + (K - 1 - i)
                    tl.store(by_taps + place, sums, mask=own)
        place = ((t * batch + n) * width)[:, None] + channel[None, :]
        if PAST:
            early = ((t < 0) & (t >= 1 - K))[:, None] & own[None, :]
            before = ((((t + (K - 1)) * batch) + n) * width)[:, None] + channel[None, :]
            tl.store(d_past + before, by_u.to(d_past.dtype.element_ty), mask=early)
        outer = _outer(alpha, a, t, n, h, d, own, al_t, al_n, a_t, a_n, time)
        tl.store(d_x + place, (by_u * _silu(outer)).to(d_x.dtype.element_ty), mask=inside)
        by_outer = by_u * _load(x, t, n, channel, own, x_t, x_n, time) * _silu_slope(outer)
        head = tl.load(alpha + t * al_t + n * al_n + h, mask=there, other=0.0).to(tl.float32)
        by_a += by_outer * _silu(head)[:, None]
        by_head = tl.sum(by_outer * _load(a, t, n, d, own, a_t, a_n, time), 1) * _silu_slope(head)
        tl.store(d_alpha + (t * batch + n) * heads + h, by_head.to(d_alpha.dtype.element_ty), mask=there)
    place = ((t * batch + n) * size)[:, None] + d[None, :]
    tl.store(d_a + place, by_a.to(d_a.dtype.element_ty), mask=inside)
