"""`rms_norm` is the norm, a row's the same bits alone and among others."""

from __future__ import annotations

import pytest
import torch

from megatron_iberis.kernels.rms_norm import native, portable, reference, rms_norm

EPS = 1.19e-7
SHAPES = [(1, 1), (3, 7), (2, 5, 16), (4, 64), (33, 1024), (2, 1031)]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2.0**-8}  # of the result: rounding to bf16 is half of 2^-8


def rows(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    size = 10.0 ** torch.randint(-3, 3, (*shape[:-1], 1), generator=generator)
    return (size * torch.randn(shape, generator=generator)).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("form", [native.rms_norm, portable.rms_norm])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_equal_reference(shape: tuple[int, ...], form: object, dtype: torch.dtype) -> None:
    x = rows(shape, dtype)
    found = form(x, EPS)  # type: ignore[operator]
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), reference.rms_norm(x, EPS), rtol=TOLERANCE[dtype], atol=1e-30)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_gives_the_same_bits_alone_among_others_and_in_any_number_of_threads(dtype: torch.dtype) -> None:
    x = rows((300, 1000), dtype)
    together = rms_norm(x, EPS)
    assert torch.equal(torch.cat([rms_norm(row, EPS) for row in x.split(1)]), together)
    for threads in (1, 2, 5):
        assert torch.equal(native.rms_norm(x, EPS, threads), together)


def test_strides_change_nothing_and_no_rows_give_none() -> None:
    x = rows((8, 6, 16), torch.float32)
    expected = rms_norm(x, EPS)
    assert torch.equal(rms_norm(x.transpose(0, 1), EPS), expected.transpose(0, 1))
    assert torch.equal(rms_norm(x[:, 1], EPS), expected[:, 1])
    assert torch.equal(rms_norm(x.transpose(1, 2).contiguous().transpose(1, 2), EPS), expected)
    assert rms_norm(x[:0], EPS).shape == (0, 6, 16)


def test_eps_counts_and_a_nan_stays_in_its_row() -> None:
    small = torch.full((1, 8), 1e-4)
    torch.testing.assert_close(rms_norm(small, 3e-8), small / (4e-8) ** 0.5)
    x = torch.ones(3, 8)
    x[1, 5] = float("nan")
    assert rms_norm(x, EPS).isnan().any(1).tolist() == [False, True, False]
