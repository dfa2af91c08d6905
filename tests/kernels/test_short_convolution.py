"""`gated_short_convolution` is SLC2's mixing: torch's convolution, blind to the future and to other documents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from megatron_iberis.kernels.short_convolution import (
    gated_short_convolution,
    gated_short_convolution_step,
    native,
    portable,
    reference,
)


def inputs(
    time: int, kernel: int, dtype: torch.dtype = torch.float32, heads: int = 3, size: int = 8
) -> list[torch.Tensor]:
    """x, alpha, a, b, weight, rounded to dtype."""
    generator = torch.Generator().manual_seed(0)
    width = heads * size
    shapes = [(time, 2, width), (time, 2, heads), (time, 2, size), (time, 2, width), (width, 1, kernel)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def value_and_gradients(function: Any, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    out = function(*tensors)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad(out, tensors, weights)]


SHAPES = [(time, kernel) for kernel in (1, 2, 3, 4, 5) for time in (1, 2, 4, 33)]  # T, K: also T < K


@pytest.mark.parametrize(("time", "kernel"), SHAPES)
def test_values_and_gradients_equal_reference(time: int, kernel: int) -> None:
    tensors = inputs(time, kernel)
    found = value_and_gradients(gated_short_convolution, tensors)
    expected = value_and_gradients(reference.gated_short_convolution, tensors)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("time", "kernel"), SHAPES)
def test_bf16_is_near_reference_in_fp32(time: int, kernel: int) -> None:
    tensors = inputs(time, kernel, torch.bfloat16)
    wide = [x.detach().float().requires_grad_() for x in tensors]
    found = value_and_gradients(gated_short_convolution, tensors)
    expected = value_and_gradients(reference.gated_short_convolution, wide)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.float() - want).norm() <= 0.02 * want.norm() + 1e-3


def test_fp64_gradients_equal_finite_differences() -> None:
    tensors = [x.detach().double().requires_grad_() for x in inputs(4, 3, heads=2, size=2)]
    assert torch.autograd.gradcheck(gated_short_convolution, tensors)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("changed", [0, 1, 9, 19])
def test_a_token_reaches_the_next_k_outputs_and_no_others(changed: int, kernel: int) -> None:
    *tensors, weight = (x.detach() for x in inputs(20, kernel))
    before = gated_short_convolution(*tensors, weight)
    for x in tensors:
        x[changed] += 1.0
    after = gated_short_convolution(*tensors, weight)
    differs = (after != before).flatten(1).any(1)
    assert differs.tolist() == [changed <= t < changed + kernel for t in range(20)]


def test_last_tap_is_the_current_token() -> None:
    x, alpha, a, b, weight = (t.detach() for t in inputs(6, 3))
    weight[..., :-1] = 0
    outer = (F.silu(alpha).unsqueeze(-1) * a.unsqueeze(-2)).flatten(-2)
    expected = b * F.silu(weight[:, 0, -1] * F.silu(outer) * x)
    torch.testing.assert_close(gated_short_convolution(x, alpha, a, b, weight), expected)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("lengths", [[20], [1, 19], [7, 1, 1, 3, 8], [18, 2]])
def test_each_document_is_mixed_as_if_it_were_alone(lengths: list[int], kernel: int) -> None:
    tensors = inputs(20, kernel)
    positions = torch.cat([torch.arange(n) for n in lengths]).unsqueeze(1).expand(-1, 2)

    def found(*tensors: torch.Tensor) -> torch.Tensor:
        return gated_short_convolution(*tensors, positions=positions)

    def expected(*tensors: torch.Tensor) -> torch.Tensor:
        *split, weight = tensors
        documents = zip(*(x.split(lengths) for x in split), strict=True)
        return torch.cat([reference.gated_short_convolution(*document, weight) for document in documents])

    torch.testing.assert_close(
        value_and_gradients(found, tensors), value_and_gradients(expected, tensors), rtol=1e-5, atol=1e-5
    )


def parts_of(tensors: list[torch.Tensor], lengths: list[int]) -> list[torch.Tensor]:
    """Output and last inputs of a row that is given chunk by chunk, each with the tail of the one before."""
    *whole, weight = tensors
    outputs, tail = [], None
    for chunk in zip(*(x.split(lengths) for x in whole), strict=True):
        mixed, tail = gated_short_convolution(*chunk, weight, before=tail, return_tail=True)
        assert tail.shape[0] == weight.shape[-1] - 1
        outputs.append(mixed)
    assert tail is not None
    return [torch.cat(outputs), tail]


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("lengths", [[12], [5, 7], [1, 1, 1, 9], [1] * 12, [2, 3, 1, 6]], ids=str)
def test_chunks_that_hand_on_their_tails_equal_the_whole(lengths: list[int], kernel: int) -> None:
    """Chunks shorter than K-1 too: the tail then reaches back beyond the chunk."""
    tensors = inputs(12, kernel)
    found, tail = parts_of(tensors, lengths)
    expected, whole_tail = gated_short_convolution(*tensors, return_tail=True)
    torch.testing.assert_close([found, tail], [expected, whole_tail], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        value_and_gradients(lambda *x: parts_of(list(x), lengths)[0], tensors),
        value_and_gradients(reference.gated_short_convolution, tensors),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_tail_is_the_convolution_s_last_inputs() -> None:
    x, alpha, a, b, weight = (t.detach() for t in inputs(6, 4))
    u = F.silu((F.silu(alpha).unsqueeze(-1) * a.unsqueeze(-2)).flatten(-2)) * x
    assert torch.equal(gated_short_convolution(x, alpha, a, b, weight, return_tail=True)[1], u[-3:])
    short = gated_short_convolution(x[:1], alpha[:1], a[:1], b[:1], weight, before=u[-3:], return_tail=True)[1]
    assert torch.equal(short, torch.cat((u[-2:], u[:1])))


def test_gradients_reach_back_through_the_tail() -> None:
    tensors = [x.detach().double().requires_grad_() for x in inputs(6, 3, heads=2, size=2)]
    assert torch.autograd.gradcheck(lambda *x: tuple(parts_of(list(x), [1, 2, 3])), tensors)


STEPS = [native.gated_short_convolution_step, portable.gated_short_convolution_step]
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("heads", "size"), [(3, 8), (2, 64), (2, 5), (1, 17)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_token_by_token_equals_the_whole(kernel: int, heads: int, size: int, step: Any, dtype: torch.dtype) -> None:
    """Of two sequences in slots of their own; what lies in other slots, NaN, is neither read nor changed."""
    *tensors, weight = (x.detach() for x in inputs(9, kernel, dtype, heads, size))
    expected, tail = gated_short_convolution(*tensors, weight, return_tail=True)
    kept = torch.full((kernel - 1, 4, heads * size), float("nan"), dtype=dtype)
    slots = torch.tensor([3, 1])
    kept[:, slots] = 0
    for time in range(9):
        found = step(*(x[time] for x in tensors), weight, kept, slots)
        torch.testing.assert_close(found, expected[time], rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
    torch.testing.assert_close(kept[:, slots], tail, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
    assert kept[:, [0, 2]].isnan().all()


def test_a_token_of_a_row_of_projections_gives_the_same_bits_alone_and_in_any_number_of_threads() -> None:
    row = torch.randn(70, 2 * 128 + 64 + 2, generator=torch.Generator().manual_seed(0))
    x, b, a, alpha = row.split((128, 128, 64, 2), dim=-1)
    weight, before = torch.randn(128, 1, 3), torch.randn(2, 70, 128)
    slots = torch.randperm(70)

    def found(some: slice, threads: int) -> torch.Tensor:
        of = (y[some] for y in (x, alpha, a, b))
        return native.gated_short_convolution_step(*of, weight, before.clone(), slots[some], threads)

    together = found(slice(None), 2)
    assert torch.equal(torch.cat([found(slice(i, i + 1), 1) for i in range(70)]), together)
    assert torch.equal(found(slice(None), 5), together)


@pytest.mark.parametrize("size", [1e-30, 1.0, 30.0, 1e4, 1e30])
def test_gates_are_right_for_numbers_of_any_size(size: float) -> None:
    """SiLU far below and far above zero, where e^x vanishes or would overflow."""
    x = torch.linspace(-1, 1, 4096, dtype=torch.float64) * size
    b, a, alpha = torch.ones(1, 4096), torch.zeros(1, 4096), torch.zeros(1, 1)
    weight, before = torch.tensor([1.0, 0.0]).expand(4096, 1, 2), x.float()[None, None]
    found = gated_short_convolution_step(b, alpha, a, b, weight, before.clone(), torch.tensor([0]))
    torch.testing.assert_close(found[0].double(), F.silu(x.float().double()), rtol=1e-6, atol=1e-36)


def test_wrong_arguments_of_a_step_are_told() -> None:
    row = torch.zeros(2, 8)
    arguments = [row, torch.zeros(2, 2), torch.zeros(2, 4), row, torch.zeros(8, 1, 3), torch.zeros(2, 3, 8)]
    with pytest.raises(ValueError, match="no such slot"):
        gated_short_convolution_step(*arguments, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"an array must be \[2, 8\]"):
        gated_short_convolution_step(row[:1], *arguments[1:], torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"inputs \[K-1, slots, E\]"):
        gated_short_convolution_step(*arguments[:5], torch.zeros(1, 3, 8), torch.tensor([0, 1]))
