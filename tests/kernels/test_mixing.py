"""SLC2's mixing in C++, forward and backward, by every kernel that this CPU has: what fp64 gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from megatron_iberis import _C
from megatron_iberis.kernels.short_convolution import gated_short_convolution, native, portable
from megatron_iberis.planner.tracing import Tracer

CASES = [  # T, K, heads, size, what precedes, documents
    pytest.param(70, 3, 3, 8, False, False, id="two-tiles"),
    pytest.param(200, 4, 2, 24, False, True, id="documents-over-tiles"),
    pytest.param(130, 3, 1, 17, True, False, id="odd-head-after-a-chunk"),
    pytest.param(3, 5, 2, 5, True, True, id="shorter-than-the-kernel"),
    pytest.param(64, 1, 2, 16, True, False, id="one-tap"),
    pytest.param(66, 70, 2, 3, True, True, id="kernel-longer-than-a-tile"),
]

NORMS = [pytest.param(None, id="plain"), pytest.param(0.1, id="normed")]  # what is added to the mean of squares


def inputs(time: int, kernel: int, heads: int, size: int, past: bool, documents: bool) -> tuple[list[Any], Any]:
    """fp64 x, alpha, a, b, weight, past of two sequences; their tokens' places in documents."""
    generator = torch.Generator().manual_seed(time)
    width = heads * size
    shapes = [(time, 2, width), (time, 2, heads), (time, 2, size), (time, 2, width), (width, 1, kernel)]
    shapes += [(kernel - 1, 2, width)] if past else []
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    positions = torch.stack((torch.arange(time) % 7, torch.arange(time) % 67), dim=1) if documents else None
    return tensors, positions


def value_and_gradients(function: Any, tensors: list[torch.Tensor], positions: Any, *rest: Any) -> list[torch.Tensor]:
    tensors = [x.detach().requires_grad_() for x in tensors]
    y = function(*tensors[:5], tensors[5] if len(tensors) > 5 else None, positions, *rest)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y, *torch.autograd.grad(y, tensors, weights)]


@pytest.mark.parametrize("kernel_name", _C.mixing_kernels())
@pytest.mark.parametrize("norm_eps", NORMS)
@pytest.mark.parametrize(("time", "kernel", "heads", "size", "past", "documents"), CASES)
def test_values_and_gradients_equal_fp64(
    monkeypatch: pytest.MonkeyPatch,
    time: int,
    kernel: int,
    heads: int,
    size: int,
    past: bool,
    documents: bool,
    norm_eps: float | None,
    kernel_name: str,
) -> None:
    tensors, positions = inputs(time, kernel, heads, size, past, documents)
    for name in ("mix", "mix_backward"):
        monkeypatch.setattr(_C, name, with_kernel(getattr(_C, name), kernel_name))
    expected = value_and_gradients(portable.gated_short_convolution, tensors, positions, norm_eps)
    found = value_and_gradients(native.gated_short_convolution, [x.float() for x in tensors], positions, norm_eps)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5)


def with_kernel(function: Any, name: str) -> Any:
    return lambda *arguments: function(*arguments, name)


@pytest.mark.parametrize("norm_eps", NORMS)
@pytest.mark.parametrize(("time", "kernel", "heads", "size", "past", "documents"), CASES)
def test_bf16_is_nearer_to_fp64_than_torch_s_operations(
    time: int, kernel: int, heads: int, size: int, past: bool, documents: bool, norm_eps: float | None
) -> None:
    """They round after each step. A half more is granted: errors are few in small tensors."""
    tensors, positions = inputs(time, kernel, heads, size, past, documents)
    rounded = [x.bfloat16() for x in tensors]
    wide = [x.double() for x in rounded]
    expected = value_and_gradients(portable.gated_short_convolution, wide, positions, norm_eps)
    found = value_and_gradients(native.gated_short_convolution, rounded, positions, norm_eps)
    other = value_and_gradients(portable.gated_short_convolution, rounded, positions, norm_eps)
    for got, theirs, want in zip(found, other, expected, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.double() - want).norm() <= 1.5 * (theirs.double() - want).norm() + 1e-12
        assert (got.double() - want).norm() <= 0.01 * want.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(dtype: torch.dtype) -> None:
    tensors, positions = inputs(300, 3, 2, 16, True, True)
    tensors = [x.to(dtype) for x in tensors]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = value_and_gradients(native.gated_short_convolution, tensors, positions, 0.1)
        torch.set_num_threads(4)
        together = value_and_gradients(native.gated_short_convolution, tensors, positions, 0.1)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_inputs_and_gradients_may_lie_in_any_order() -> None:
    """As slices of one projection, and transposed."""
    tensors, _ = inputs(20, 3, 2, 8, False, False)
    x, alpha, a, b, weight = (x.float() for x in tensors)
    row = torch.cat((x, alpha, a, b), dim=-1).requires_grad_()
    parts = row.split((16, 2, 8, 16), dim=-1)
    turned = [part.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for part in parts]
    factors = torch.randn(2, 20, 16).transpose(0, 1)
    expected = native.gated_short_convolution(x, alpha, a, b, weight, None, None)
    of_row = gated_short_convolution(*parts, weight)
    of_turned = gated_short_convolution(*turned, weight)
    assert torch.equal(of_row, expected)
    assert torch.equal(of_turned, expected)
    (by_row,) = torch.autograd.grad(of_row, row, factors)
    by_turned = torch.autograd.grad(of_turned, turned, factors.contiguous())
    assert torch.equal(by_row, torch.cat(by_turned, dim=-1))


def test_what_makes_the_past_is_given_the_last_inputs_and_gives_its_gradient_back() -> None:
    """As context parallelism does: here each chunk is its own neighbour, so that gradients go round."""
    tensors, _ = inputs(9, 3, 2, 8, False, False)
    found = value_and_gradients(ring(native), [x.float() for x in tensors], None)
    expected = value_and_gradients(ring(portable), tensors, None)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def ring(module: Any) -> Any:
    return lambda *given: module.gated_short_convolution(*given[:5], lambda u: u[-2:] * 0.5, None)


def test_wrong_arguments_are_told() -> None:
    tensors, _ = inputs(4, 3, 2, 8, False, False)
    x, alpha, a, b, weight = (x.float() for x in tensors)
    with pytest.raises(ValueError, match=r"x, b and y must be \[T, B, E\]"):
        gated_short_convolution(x, alpha, a, b[:3], weight)
    with pytest.raises(ValueError, match=r"past \[K-1, B, E\]"):
        gated_short_convolution(x, alpha, a, b, weight, torch.zeros(1, 2, 16))
    with pytest.raises(ValueError, match=r"positions \[T, B\]"):
        gated_short_convolution(x, alpha, a, b, weight, positions=torch.zeros(4, 3, dtype=torch.int64))


WIDTH, HEADS, TAPS = 1280, 10, 3  # d20's
TIME = 2048


def wide_tensors_moved(function: Any, steps_of_a_tile: int, norm_eps: float | None) -> tuple[float, float]:
    """How many tensors [T, B, E] in bf16 forward and backward read and write, by what their operators are given and
    give; and the taps' gradient, of which each tile writes a part in fp32 that is read once."""
    shapes = [(TIME, 1, WIDTH), (TIME, 1, HEADS), (TIME, 1, WIDTH // HEADS), (TIME, 1, WIDTH), (WIDTH, 1, TAPS)]
    with FakeTensorMode():
        tensors = [torch.empty(shape, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
        with Tracer(tensors) as tracer:
            y = function(*tensors, None, None, norm_eps)
            forward = tracer.work.bytes
            torch.autograd.grad(y, tensors, torch.empty_like(y))
    parts = 2 * 4 * TAPS * WIDTH * -(-TIME // steps_of_a_tile)
    wide = 2 * TIME * WIDTH
    return forward / wide, (tracer.work.bytes - forward + parts) / wide


@pytest.mark.parametrize("norm_eps", NORMS)
def test_at_most_three_and_a_half_wide_tensors_are_moved_forward_and_seven_backward(norm_eps: float | None) -> None:
    forward, backward = wide_tensors_moved(native.gated_short_convolution, _C.mixing_tile_steps(), norm_eps)
    assert 3 < forward < 3.5
    assert 5 < backward < 7
