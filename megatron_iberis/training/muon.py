"""Muon's update direction for whole matrices, whose gradients lie in pieces on many ranks.

Ranks send their pieces of the gradient to the matrices' owners, the owners orthogonalise, the results go back
(`sharding.exchange`). So the update is that of one process whatever tensor parallelism and ZeRO do, and no
matrix is orthogonalised twice. Messages are in the precision of Newton-Schulz.

Source of the quintic: Keller Jordan, Muon, as nanochat runs it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch

from megatron_iberis.sharding.exchange import Exchange

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: torch.Tensor, steps: int) -> torch.Tensor:
    """The nearest semi-orthogonal matrices, roughly: `steps` of Newton-Schulz. [N, rows, cols] -> the same.

    Singular values end up in about [0.7, 1.2]. The precision is that of the input; an all-zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


def cost(shape: tuple[int, ...]) -> float:
    """What orthogonalising a matrix of a shape costs, up to a constant factor."""
    rows, cols = shape
    return float(rows * cols * min(rows, cols))


def muon_directions(
    gradients: Sequence[torch.Tensor], exchange: Exchange, steps: int, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Orthogonal factors x sqrt(max(1, rows / cols)), laid out like the (momentum-averaged) gradients.

    Called by all ranks together. Matrices of one shape are taken as one batch.
    """
    matrices = exchange.gather(gradients, dtype)
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, matrix in matrices.items():
        by_shape[tuple(matrix.shape)].append(name)
    for (rows, cols), names in by_shape.items():
        batch = orthogonalize(torch.stack([matrices[name] for name in names]), steps)
        matrices.update(zip(names, batch.mul_(math.sqrt(max(1.0, rows / cols))), strict=True))
    directions = [torch.zeros_like(g) for g in gradients]
    exchange.scatter(matrices, directions, dtype)
    return directions
