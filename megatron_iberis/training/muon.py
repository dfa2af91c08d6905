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
_BLOCKS = 512
"""Rows from which half of a symmetric product is taken from the other half."""


def orthogonalize(matrices: torch.Tensor, steps: int) -> torch.Tensor:
    """The nearest semi-orthogonal matrices, roughly: `steps` of Newton-Schulz. [..., rows, cols] -> the same.

    x <- a x + (b G + c G^2) x with G = x x^T, of a tall matrix by its transpose. Singular values end up in about
    [0.7, 1.2]. The precision is that of the input; an all-zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = _square(x)
        x = _product(_square(gram).mul_(c).add_(gram, alpha=b), x, x, a)
    return x.mT if tall else x


def _product(left: torch.Tensor, right: torch.Tensor, plus: torch.Tensor, factor: float) -> torch.Tensor:
    """left @ right + factor * plus, rounded once."""
    if left.dim() == 2:
        return torch.addmm(plus, left, right, beta=factor)
    return torch.baddbmm(plus, left, right, beta=factor)


def _square(x: torch.Tensor) -> torch.Tensor:
    """x @ x^T, of large ones three quarters of it, which the rest mirrors: but bf16 on a CPU is faster whole."""
    rows = x.shape[-2]
    if rows < _BLOCKS or (x.dtype == torch.bfloat16 and x.device.type == "cpu"):
        return x @ x.mT
    half = rows // 2
    upper, lower = x[..., :half, :], x[..., half:, :]
    below = lower @ x.mT
    out = x.new_empty(*x.shape[:-1], rows)
    out[..., half:, :] = below
    out[..., :half, half:] = below[..., :half].mT
    out[..., :half, :half] = upper @ upper.mT
    return out


def cost(shape: tuple[int, ...]) -> float:
    """What orthogonalising a matrix of a shape costs, in multiplications of numbers and up to a constant factor."""
    short, long = sorted(shape)
    return float(2 * long * short**2 + short**3)


def muon_directions(gradients: Sequence[torch.Tensor], exchange: Exchange, steps: int, dtype: torch.dtype) -> None:
    """Puts orthogonal factors x sqrt(max(1, rows / cols)) in the place of the (momentum-averaged) gradients.

    Called by all ranks together. On a GPU matrices of one shape are taken as one batch; on a CPU products of a batch
    are slower than one by one, in bf16 several times.
    """
    exchange.clear_gaps(gradients)
    sent = exchange.gather(gradients, dtype)
    matrices = exchange.in_place(gradients) | sent
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, matrix in matrices.items():
        by_shape[tuple(matrix.shape)].append(name)
    for (rows, cols), names in by_shape.items():
        scale = math.sqrt(max(1.0, rows / cols))
        for batch in [[name] for name in names] if exchange.device.type == "cpu" else [names]:
            each = [matrices[name].to(exchange.device, dtype) for name in batch]
            found = orthogonalize(each[0] if len(batch) == 1 else torch.stack(each), steps).mul_(scale)
            for name, direction in zip(batch, [found] if len(batch) == 1 else found, strict=True):
                matrices[name].copy_(direction)
    exchange.scatter(sent, gradients, dtype)
