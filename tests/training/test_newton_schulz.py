"""Newton-Schulz: five steps of the quintic, against an independent one and against an SVD, in fp32 and in bf16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.training import newton_schulz
from megatron_iberis.training.newton_schulz import batch_size, flops, orthogonalize, products

SHAPES = [(8, 8), (16, 48), (48, 16), (1, 5), (5, 1), (64, 64)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quintic(gradient: np.ndarray, steps: int) -> np.ndarray:
    """Keller Jordan's iteration, written out for one matrix in fp64."""
    x = gradient / (np.linalg.norm(gradient) + 1e-7)
    for _ in range(steps):
        if x.shape[0] > x.shape[1]:
            a = x.T @ x
            x = 3.4445 * x + x @ (-4.7750 * a + 2.0315 * a @ a)
        else:
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_equals_the_quintic_written_out(shape: tuple[int, int], steps: int) -> None:
    matrix = random(*shape)
    wanted = torch.from_numpy(quintic(matrix.double().numpy(), steps))
    torch.testing.assert_close(orthogonalize(matrix.unsqueeze(0), steps)[0].double(), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_keeps_the_singular_vectors_and_brings_the_values_near_one(shape: tuple[int, int]) -> None:
    # From well-conditioned matrices: the iteration lifts a value by 3.4 a step at most.
    u, _, vh = torch.linalg.svd(random(*shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(1.0, 0.1, min(shape))) @ vh
    inner = u.T @ orthogonalize(matrix.unsqueeze(0), 5)[0] @ vh.T
    values = inner.diagonal()
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (inner - torch.diag(values)).abs().max() < 1e-4


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_tall_is_the_transpose_of_wide(dtype: torch.dtype, tolerance: float) -> None:
    """Up to rounding: products are taken from the other side."""
    wide = random(3, 8, 24).to(dtype)
    tall = orthogonalize(wide.mT.contiguous(), 5)
    assert tall.dtype == dtype
    torch.testing.assert_close(tall, orthogonalize(wide, 5).mT, rtol=0, atol=tolerance)


def test_zero_stays_zero_and_the_size_of_the_gradient_does_not_matter() -> None:
    assert torch.equal(orthogonalize(torch.zeros(2, 4, 6), 5), torch.zeros(2, 4, 6))
    matrix = random(1, 12, 20)
    for factor in (1e-3, 1e6):
        torch.testing.assert_close(orthogonalize(matrix * factor, 5), orthogonalize(matrix, 5), rtol=0, atol=2e-3)


@settings(deadline=None)
@given(count=st.integers(1, 5), rows=st.integers(1, 20), cols=st.integers(1, 20), seed=st.integers(0, 1000))
def test_batch_is_one_by_one(count: int, rows: int, cols: int, seed: int) -> None:
    batch = random(count, rows, cols, seed=seed)
    alone = torch.cat([orthogonalize(matrix.unsqueeze(0), 5) for matrix in batch])
    torch.testing.assert_close(orthogonalize(batch, 5), alone, rtol=0, atol=1e-4)


def matrix_of(values: torch.Tensor, cols: int) -> torch.Tensor:
    """A random matrix of these singular values, fp64 [rows, cols]."""
    rows = len(values)
    left, right = (torch.linalg.qr(random(n, rows, seed=n).double())[0] for n in (rows, cols))
    return left @ torch.diag(values) @ right.mT


PLACES = torch.arange(1, 129, dtype=torch.float64)
SPECTRA = {
    "all equal": torch.ones(128, dtype=torch.float64),
    "of a random matrix": torch.linalg.svdvals(random(128, 704).double()),
    "1 over k": 1 / PLACES,
    "1 over k squared": 1 / PLACES**2,
    "down to 1e-3": torch.logspace(0, -3, 128, dtype=torch.float64),
    "down to 1e-6": torch.logspace(0, -6, 128, dtype=torch.float64),
    "eight of 128": (PLACES <= 8).double(),
    "eight above a thousandth": torch.where(PLACES <= 8, 1.0, 1e-3).double(),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_long_matrices_in_bf16_are_as_near_the_exact_iteration_by_their_gram_matrix(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where singular values fall off, as a gradient's do, nearer than step by step."""
    matrix = matrix_of(SPECTRA[name], 704).bfloat16()
    exact = torch.from_numpy(quintic(matrix.double().numpy(), 5))
    by_gram = orthogonalize(matrix, 5).double()
    monkeypatch.setattr(newton_schulz, "LONG", 1000)
    directly = orthogonalize(matrix, 5).double()
    error, usual = ((found - exact).norm() / exact.norm() for found in (by_gram, directly))
    assert not torch.equal(by_gram, directly)
    assert error < 1.1 * usual or error < 0.05, f"{error:.4f} where step by step has {usual:.4f}"
    largest = torch.linalg.matrix_norm(by_gram, 2)
    assert largest < 1.05 * torch.linalg.matrix_norm(exact, 2), "no singular value runs away"


@pytest.mark.parametrize(("shape", "dtype"), [((24, 96), torch.float32), ((40, 64), torch.bfloat16)])
def test_fp32_and_short_matrices_are_taken_step_by_step(shape: tuple[int, int], dtype: torch.dtype) -> None:
    n, m = shape
    assert products(shape, 5, dtype) == [((n, n, m), 5), ((n, n, n), 5), ((n, m, n), 5)]


def test_long_matrices_take_fewer_products_in_bf16() -> None:
    assert flops((3, 2), 5, torch.float32) == 5 * (4 * 3 * 2 * 2 + 2 * 2**3)
    found = products((5632, 1024), 5, torch.bfloat16)
    assert found == [((1024, 1024, 5632), 2), ((1024, 1024, 1024), 14), ((1024, 5632, 1024), 2)]
    assert flops((1024, 5632), 5, torch.bfloat16) < 0.63 * flops((1024, 5632), 5, torch.float32)


@pytest.mark.parametrize("steps", range(1, 11))
def test_no_number_of_steps_runs_away_by_gram_matrices(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond five steps the iteration only moves values around one, and rounding with them."""
    for values in (torch.linspace(1.0, 0.2, 128, dtype=torch.float64), SPECTRA["down to 1e-3"]):
        matrix = matrix_of(values, 704).bfloat16()
        exact = torch.from_numpy(quintic(matrix.double().numpy(), steps))
        found = orthogonalize(matrix, steps).double()
        with monkeypatch.context() as patched:
            patched.setattr(newton_schulz, "LONG", 1000)
            directly = orthogonalize(matrix, steps).double()
        error, usual = ((x - exact).norm() / exact.norm() for x in (found, directly))
        assert error < max(1.2 * usual, 0.08), f"{error:.4f} where step by step has {usual:.4f}"


def test_a_batch_is_what_its_matrices_are_alone() -> None:
    """To the rounding of bf16, whose products a CPU may add up in another order."""
    matrices = torch.randn(5, 64, 48, generator=torch.Generator().manual_seed(0)).bfloat16()
    alone = torch.stack([orthogonalize(matrix, 5) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices, 5), alone, rtol=2**-6, atol=2**-7)


@pytest.mark.parametrize("amx", [False, True])
def test_a_cpu_takes_batches_only_where_their_products_are_quick(monkeypatch: pytest.MonkeyPatch, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert batch_size((256, 256), torch.bfloat16, "cpu") == (64 if amx else 1)
    assert batch_size((4096, 4096), torch.bfloat16, "cpu") == 1
    assert batch_size((256, 256), torch.float32, "cpu") == 1
    assert batch_size((256, 256), torch.float32, "cuda") is None
