"""`int8_linear` is the product with the dequantised weights, in the same bits for every kind of CPU, whatever the
number of threads and the rows beside a row.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis import _C
from megatron_iberis.kernels.int8_linear import Int8Weight, int8_linear, native, portable, quantize, reference

KERNELS = _C.int8_kernels()
SHAPES = [(1, 1), (16, 32), (17, 33), (15, 31), (64, 64), (100, 96), (33, 257), (160, 1024)]  # O, I
ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 33]


def matrix(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


def assert_near_reference(found: torch.Tensor, x: torch.Tensor, weight: Int8Weight) -> None:
    """Within what rounding x to 15 bits of the largest of its row (or 2^-112) and summing in fp32 can do at most."""
    wide = weight.dequantized().double().abs()
    steps = 2.0**-14 * x.double().abs().amax(1, keepdim=True).clamp(min=2.0**-112) * wide.sum(1)
    sums = 2.0**-20 * (x.double().abs() @ wide.t())
    assert ((found.double() - reference.int8_linear(x, weight)).abs() <= steps + sums + 1e-37).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_values_equal_reference(outputs: int, inputs: int, group: int, kernel: str) -> None:
    weight = quantize(matrix(outputs, inputs), group)
    for rows in ROWS:
        x = matrix(rows, inputs, seed=rows)
        found = native.int8_linear(x, weight, kernel=kernel)
        assert found.shape == (rows, outputs)
        assert_near_reference(found, x, weight)


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_the_portable_product_equals_reference(outputs: int, inputs: int, group: int) -> None:
    weight, x = quantize(matrix(outputs, inputs), group), matrix(5, inputs)
    expected = reference.int8_linear(x, weight).float()
    torch.testing.assert_close(portable.int8_linear(x, weight), expected, rtol=1e-5, atol=1e-4)


def test_the_portable_product_is_made_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = quantize(matrix(100, 40)), matrix(5, 40)
    expected = reference.int8_linear(x, weight).float()
    monkeypatch.setattr(portable, "_PART", 1)
    torch.testing.assert_close(portable.int8_linear(x, weight), expected, rtol=1e-5, atol=1e-4)


def test_rounding_of_rows_cannot_be_seen_beside_that_of_weights() -> None:
    plain, x = matrix(256, 1024), matrix(16, 1024, seed=1)
    weight = quantize(plain)
    exact, product = x.double() @ plain.double().t(), reference.int8_linear(x, weight)
    of_weights = (product - exact).norm() / exact.norm()
    of_rows = (int8_linear(x, weight).double() - product).norm() / exact.norm()
    assert of_weights < 0.006
    assert of_rows < 0.01 * of_weights


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_all_kinds_of_cpu_and_any_number_of_threads_give_the_same_bits(outputs: int, inputs: int, group: int) -> None:
    weight = quantize(matrix(outputs, inputs), group)
    for rows in ROWS:
        x = matrix(rows, inputs, seed=rows)
        first = native.int8_linear(x, weight, threads=1, kernel="portable")
        for kernel in KERNELS:
            for threads in (1, 2, 5):
                assert torch.equal(native.int8_linear(x, weight, threads, kernel), first)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_gives_the_same_bits_alone_and_among_others(threads: int, kernel: str) -> None:
    weight, x = quantize(matrix(200, 300)), matrix(33, 300)
    x[7] *= 1e6
    x[20] *= 1e-9
    alone = torch.cat([native.int8_linear(row, weight, threads, kernel) for row in x.split(1)])
    for rows in ROWS:
        together = [native.int8_linear(part, weight, threads, kernel) for part in x.split(rows)]
        assert torch.equal(torch.cat(together), alone)


def test_a_large_product_gives_the_same_bits_in_one_thread_and_in_several() -> None:
    weight, x = quantize(matrix(4096, 512)), matrix(3, 512)
    first = native.int8_linear(x, weight, threads=1)
    assert_near_reference(first, x, weight)
    for threads in (2, 3, 2, 1, 4, 2) * 20:
        assert torch.equal(native.int8_linear(x, weight, threads), first)


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
sizes = st.sampled_from([0.0, 1.0, 1e-30, 1e-12, 1e12, 1e18])


@given(st.integers(1, 40), st.integers(1, 80), st.integers(1, 18), st.sampled_from([32, 64]), st.data())
@settings(max_examples=60, deadline=None)
def test_any_values_equal_reference(outputs: int, inputs: int, rows: int, group: int, data: st.DataObject) -> None:
    """Rows of zeros among them, groups of very different sizes, and single numbers that stick out."""
    plain, x = matrix(outputs, inputs, seed=outputs), matrix(rows, inputs, seed=inputs)
    for whole in (plain, x):
        for row in whole:
            row *= data.draw(sizes)
        place = (data.draw(st.integers(0, whole.shape[0] - 1)), data.draw(st.integers(0, inputs - 1)))
        whole[place] = data.draw(st.floats(-(2.0**60), 2.0**60, width=32))
    weight = quantize(plain, group)
    for kernel in KERNELS:
        assert_near_reference(native.int8_linear(x, weight, kernel=kernel), x, weight)


@given(st.lists(numbers, min_size=1, max_size=100), st.sampled_from([32, 64]))
def test_dequantized_weights_are_within_half_a_step(values: list[float], group: int) -> None:
    plain = torch.tensor([values, values[::-1]])
    weight = quantize(plain, group)
    found = weight.dequantized()
    assert found.isfinite().all()
    for part, got in zip(plain.split(group, 1), found.split(group, 1), strict=True):
        step = part.abs().amax(1, keepdim=True).double() / 127 * (1 + 2.0**-7) + 2.0**-133
        assert ((got.double() - part.double()).abs() <= 0.51 * step).all()


@pytest.mark.parametrize("group", [32, 64])
def test_what_lies_on_the_grid_is_kept_exactly(group: int) -> None:
    plain = torch.randint(-127, 128, (40, 2 * group), generator=torch.Generator().manual_seed(0)).float()
    plain[:, ::group] = 127.0
    plain *= 2.0 ** torch.arange(-20, 20).unsqueeze(1)
    assert torch.equal(quantize(plain, group).dequantized(), plain)


def test_weights_of_zero_give_zero() -> None:
    weight = quantize(torch.zeros(20, 50))
    assert not int8_linear(matrix(3, 50), weight).any()
    assert not int8_linear(torch.zeros(3, 50), quantize(matrix(20, 50))).any()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_is_nan_and_no_other(bad: float, kernel: str) -> None:
    weight, x = quantize(matrix(20, 70)), matrix(6, 70)
    expected = native.int8_linear(x, weight)
    x[2, 69] = bad
    found = native.int8_linear(x, weight, kernel=kernel)
    assert found[2].isnan().all()
    expected[2] = found[2]
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_give_nan_in_their_output_only(bad: float) -> None:
    plain = matrix(20, 70)
    plain[3, 5] = bad
    for function in (native.int8_linear, portable.int8_linear):
        found = function(matrix(4, 70), quantize(plain))
        assert found[:, 3].isnan().all()
        assert found.isfinite().sum() == 4 * 19


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_rows_give_the_rounded_result_of_wide_ones(dtype: torch.dtype) -> None:
    weight, x = quantize(matrix(48, 64)), matrix(5, 64).to(dtype)
    found = int8_linear(x, weight)
    assert found.dtype == dtype
    assert torch.equal(found, int8_linear(x.float(), weight).to(dtype))


def test_strides_of_rows_change_nothing() -> None:
    weight, x = quantize(matrix(48, 64)), matrix(10, 64)
    expected = int8_linear(x, weight)
    assert torch.equal(int8_linear(x.t().contiguous().t(), weight), expected)
    assert torch.equal(int8_linear(x[::3], weight), expected[::3])
    assert torch.equal(int8_linear(x[:1].expand(4, -1), weight), expected[:1].expand(4, -1))


def test_weights_of_any_type_and_strides_are_quantised() -> None:
    plain = matrix(50, 70).bfloat16()
    expected = quantize(plain.float())
    for other in (plain, plain.t().contiguous().t(), plain.double(), plain.clone().requires_grad_()):
        assert torch.equal(quantize(other).dequantized(), expected.dequantized())


def test_nothing_times_something_is_nothing() -> None:
    assert int8_linear(matrix(0, 40), quantize(matrix(20, 40))).shape == (0, 20)
    assert int8_linear(matrix(3, 40), quantize(torch.zeros(0, 40))).shape == (3, 0)
    assert int8_linear(torch.zeros(3, 0), quantize(torch.zeros(20, 0))).tolist() == [[0.0] * 20] * 3


def test_a_weight_takes_little_more_than_a_byte() -> None:
    plain = matrix(64, 1024)
    assert quantize(plain).nbytes == plain.numel() * (1 + 2 / 32)
    assert quantize(plain, 64).nbytes == plain.numel() * (1 + 2 / 64)


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(ValueError, match="groups of 32 or 64, not"):
        quantize(matrix(4, 4), group=48)
    with pytest.raises(ValueError, match="takes a matrix"):
        quantize(torch.zeros(4))
    weight = quantize(matrix(4, 40))
    with pytest.raises(ValueError, match=r"x must be \[N, 40\] and y \[N, 4\]"):
        int8_linear(matrix(2, 41), weight)
    with pytest.raises(ValueError, match=r"x must be \[N, 40\]"):
        int8_linear(torch.zeros(40), weight)
    with pytest.raises(ValueError, match='no int8 kernel "abacus"'):
        native.int8_linear(matrix(2, 40), weight, kernel="abacus")
    with pytest.raises(ValueError, match="not those of a matrix of this shape"):
        int8_linear(matrix(2, 90), Int8Weight(weight.values, weight.scales, (4, 90)))


# Threads


def large() -> tuple[Int8Weight, torch.Tensor]:
    return quantize(matrix(2048, 256)), matrix(2, 256)


def test_calls_from_several_threads_do_not_mix() -> None:
    weight, _ = large()
    rows = [matrix(2, 256, seed) for seed in range(4)]
    expected = [native.int8_linear(x, weight, threads=1) for x in rows]
    right = []

    def call(mine: int) -> None:
        for _ in range(50):
            right.append(torch.equal(native.int8_linear(rows[mine], weight, threads=3), expected[mine]))

    callers = [threading.Thread(target=call, args=(mine,)) for mine in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert right == [True] * 200


def test_a_forked_child_has_threads_of_its_own() -> None:
    weight, x = large()
    expected = native.int8_linear(x, weight, threads=2)
    child = os.fork()
    if child == 0:
        y = torch.empty_like(expected)
        weight.matrix.multiply(x.numpy(), y.numpy(), 2)
        os._exit(0 if torch.equal(y, expected) and _threads_of_this_process() > 1 else 1)
    assert os.waitpid(child, 0)[1] == 0


def _threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_threads_stay_and_no_more_come_than_are_asked_for() -> None:
    weight, x = large()
    native.int8_linear(x, weight, threads=3)
    before = _threads_of_this_process()
    for threads in (1, 2, 3) * 10:
        native.int8_linear(x, weight, threads=threads)
    assert _threads_of_this_process() == before


def test_threads_without_work_take_no_time() -> None:
    weight, x = large()
    native.int8_linear(x, weight, threads=4)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
    assert_near_reference(native.int8_linear(x, weight, threads=4), x, weight)


@pytest.mark.parametrize("kernel", KERNELS)
def test_relu_squared_is_that_of_the_product(kernel: str) -> None:
    weight, x = quantize(matrix(37, 70)), matrix(5, 70)
    x[3, 4] = float("nan")
    expected = F.relu(native.int8_linear(x, weight, kernel=kernel)).square()
    found = native.int8_linear(x, weight, kernel=kernel, relu_squared=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    wide = portable.int8_linear(x, weight, relu_squared=True)
    torch.testing.assert_close(wide, expected, rtol=1e-4, atol=1e-2, equal_nan=True)
