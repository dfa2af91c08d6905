"""`bf16_linear` is the product, in the same bits for every kind of CPU, number of threads, and rows beside a row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from megatron_iberis import _C
from megatron_iberis.kernels.bf16_linear import MOST_ROWS, bf16_linear, native, portable, reference

KERNELS = _C.bf16_kernels()
SHAPES = [(1, 1), (4, 32), (5, 33), (3, 31), (64, 64), (7, 257), (160, 1024)]  # O, I
ROWS = [1, 2, 3, 4, 5, 7, 8, 15, 16]


def matrix(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_values_equal_reference(outputs: int, inputs: int, kernel: str) -> None:
    weight = matrix(outputs, inputs)
    for rows in (*ROWS, 17, 33):
        x = matrix(rows, inputs, seed=rows)
        found, expected = native.bf16_linear(x, weight, kernel=kernel), reference.bf16_linear(x, weight)
        assert found.shape == (rows, outputs)
        assert found.dtype == torch.bfloat16
        sums = 2.0**-20 * (x.double().abs() @ weight.double().abs().t())
        assert ((found.double() - expected).abs() <= 2.0**-8 * expected.abs() + sums).all()


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_all_kinds_of_cpu_and_any_number_of_threads_give_the_same_bits(outputs: int, inputs: int) -> None:
    weight = matrix(outputs, inputs)
    for rows in ROWS:
        x = matrix(rows, inputs, seed=rows)
        first = native.bf16_linear(x, weight, threads=1, kernel="portable")
        for kernel in KERNELS:
            for threads in (1, 2, 5):
                assert torch.equal(native.bf16_linear(x, weight, threads, kernel), first)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_row_gives_the_same_bits_alone_and_among_others(kernel: str) -> None:
    weight, x = matrix(201, 300), matrix(16, 300)
    x[7] *= 1e6
    alone = torch.cat([native.bf16_linear(row, weight, 2, kernel) for row in x.split(1)])
    for rows in ROWS:
        together = [native.bf16_linear(part, weight, 2, kernel) for part in x.split(rows)]
        assert torch.equal(torch.cat(together), alone)


def test_sums_are_rounded_to_the_nearest_with_ties_to_even() -> None:
    numbers = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    numbers[:4] = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 3.38e38])
    parts = [numbers.bfloat16()]
    for _ in range(2):  # what fp32 holds, in three parts of bf16
        parts.append((numbers - sum(part.float() for part in parts)).bfloat16())
    weight = torch.stack(parts, dim=1)
    found = bf16_linear(torch.ones(1, 3, dtype=torch.bfloat16), weight)[0]
    assert torch.equal(found[:4096], weight.float().sum(1).bfloat16())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_in_its_row_and_its_output(bad: float, kernel: str) -> None:
    weight, x = matrix(20, 70), matrix(6, 70)
    expected = native.bf16_linear(x, weight)
    x[2, 69] = weight[3, 5] = bad
    found = native.bf16_linear(x, weight, kernel=kernel)
    assert not found[2].isfinite().any()
    assert not found[:, 3].isfinite().any()
    found[2], found[:, 3] = expected[2], expected[:, 3]
    assert torch.equal(found, expected)


def test_more_rows_are_multiplied_by_torch() -> None:
    weight, x = matrix(48, 64), matrix(MOST_ROWS + 1, 64)
    assert torch.equal(bf16_linear(x, weight), F.linear(x, weight))


def test_strides_of_rows_change_nothing() -> None:
    weight, x = matrix(48, 64), matrix(10, 64)
    expected = bf16_linear(x, weight)
    assert torch.equal(bf16_linear(x.t().contiguous().t(), weight), expected)
    assert torch.equal(bf16_linear(x[::3], weight), expected[::3])
    assert torch.equal(bf16_linear(x.clone().requires_grad_(), weight), expected)


def test_nothing_times_something_is_nothing() -> None:
    assert bf16_linear(matrix(0, 40), matrix(20, 40)).shape == (0, 20)
    assert bf16_linear(matrix(3, 40), matrix(0, 40)).shape == (3, 0)
    assert bf16_linear(matrix(3, 0), matrix(20, 0)).tolist() == [[0.0] * 20] * 3


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match=r"weight must be \[O, I\], x \[N, I\]"):
        bf16_linear(matrix(2, 41), matrix(4, 40))
    with pytest.raises(ValueError, match='no bf16 kernel "abacus"'):
        native.bf16_linear(matrix(2, 40), matrix(4, 40), kernel="abacus")


@pytest.mark.parametrize("kernel", KERNELS)
def test_relu_squared_is_that_of_the_product(kernel: str) -> None:
    weight, x = matrix(37, 70), matrix(5, 70)
    x[3, 4] = float("nan")
    expected = F.relu(native.bf16_linear(x, weight, kernel=kernel)).square()
    found = native.bf16_linear(x, weight, kernel=kernel, relu_squared=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    wide = portable.bf16_linear(x, weight, relu_squared=True)
    torch.testing.assert_close(wide, expected, rtol=2e-2, atol=1e-2, equal_nan=True)
