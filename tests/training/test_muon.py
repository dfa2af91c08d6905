"""Muon's update of one matrix: five steps of the quintic, against an independent one and against an SVD."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.model.parameters import Shard
from megatron_iberis.sharding.exchange import Exchange
from megatron_iberis.sharding.layout import Piece
from megatron_iberis.training.muon import cost, muon_directions, orthogonalize
from tests.support.ranks import Ranks, groups_of

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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_tall_is_the_transpose_of_wide(dtype: torch.dtype, tolerance: float) -> None:
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


def directions(shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Runs on one rank: Muon's directions for a random gradient of each shape, two matrices in a flat tensor."""
    groups = groups_of(1)
    gradients = {f"m{i}": random(*shape, seed=i) for i, shape in enumerate(shapes)}
    shards: dict[str, Shard] = {}
    pieces: list[Any] = []
    flats = []
    for name, gradient in gradients.items():
        shape = tuple(gradient.shape)
        shards[name] = Shard("matrix", shape, shape, None, 0, name, torch.nn.Parameter(gradient))
        pieces.append((Piece(name, 0, gradient.numel(), 3),))
        flats.append(torch.cat((torch.full((3,), 7.0), gradient.flatten())))
    exchange = Exchange(pieces, shards, groups, False, cost)
    muon_directions(flats, exchange, 5, torch.float32)
    return flats


def test_tall_matrices_get_larger_updates(one_rank: Ranks) -> None:
    found = one_rank(directions, SHAPES)[0]
    for i, (shape, flat) in enumerate(zip(SHAPES, found, strict=True)):
        wanted = math.sqrt(max(1.0, shape[0] / shape[1])) * quintic(random(*shape, seed=i).double().numpy(), 5)
        assert torch.equal(flat[:3], torch.zeros(3)), "what no matrix covers gets no update"
        torch.testing.assert_close(flat[3:].view(shape).double(), torch.from_numpy(wanted), rtol=0, atol=1e-4)
