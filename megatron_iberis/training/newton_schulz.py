"""The orthogonal factor of a matrix, roughly, by matrix products alone.

One step is x <- P x with P = a I + b G + c G^2 and G = x x^T: the quintic of Keller Jordan's Muon, as in nanochat.

Of a long matrix G is the smaller one. In bf16 several steps go through it alone, since the next G is P G P: x is read
twice for all of them, and rounded once. What is rounded is P - a I, never a I, and G is made of x again before its
own rounding outgrows it (docs/decisions.md). The idea is Dao-AILab's Gram Newton-Schulz.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from megatron_iberis.config import OptimizerConfig

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
LONG = 2
"""Columns a row from which several steps go through the Gram matrix: by so much more products of it pay."""
FIRST_ROUND, ROUND = 3, 2
"""Steps that go through one Gram matrix: three while values are small; later a third would run away."""
CPU_BATCH = 2**22
"""Elements of the matrices that a CPU takes at once: a few copies of them are small beside a model."""
_BLOCKS = 512
"""Rows from which half of a symmetric product is taken from the other half."""


def orthogonalize(matrices: torch.Tensor, steps: int) -> torch.Tensor:
    """The nearest semi-orthogonal matrices, roughly: `steps` of Newton-Schulz. [..., rows, cols] -> the same.

    A tall matrix is multiplied from the right, with G = x^T x. Singular values end up in about [0.7, 1.2]. The
    precision is that of the input; an all-zero matrix stays zero.
    """
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for count in _rounds(tuple(x.shape[-2:]), steps, x.dtype):
        x = _steps(x, count)
    return x


def batch_size(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> int | None:
    """How many matrices of a shape to orthogonalise as a batch; None: all. device: a type, as "cpu".

    On a CPU only where AMX makes products so quick that starting each decides. Without it batches are slower, in bf16
    several times, and in fp32 nothing is gained.
    """
    if device != "cpu":
        return None
    quick = dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return max(1, CPU_BATCH // math.prod(shape)) if quick else 1


def precision(config: OptimizerConfig) -> torch.dtype:
    """In which a run orthogonalises."""
    return torch.bfloat16 if config.newton_schulz_dtype == "bf16" else torch.float32


def flops(shape: tuple[int, ...], steps: int, dtype: torch.dtype) -> float:
    """Of orthogonalising a matrix of a shape."""
    return float(sum(2 * m * n * k * count for (m, n, k), count in products(shape, steps, dtype)))


def products(shape: tuple[int, ...], steps: int, dtype: torch.dtype) -> list[tuple[tuple[int, int, int], int]]:
    """What it takes: m, n, k of products [m, k] x [k, n], and how often each is done."""
    short, long = sorted(shape)
    rounds = list(_rounds(shape, steps, dtype))
    square = sum(count + 3 * (count - 1) for count in rounds)
    return [
        ((short, short, long), len(rounds)),
        ((short, short, short), square),
        ((short, long, short), len(rounds)),
    ]


def _rounds(shape: tuple[int, ...], steps: int, dtype: torch.dtype) -> Iterator[int]:
    """How many steps go through each Gram matrix."""
    by_gram = dtype == torch.bfloat16 and max(shape) >= LONG * min(shape)
    most = FIRST_ROUND if by_gram else 1
    while steps > 0:
        yield min(most, steps)
        steps -= most
        most = ROUND if by_gram else 1


def _steps(x: torch.Tensor, count: int) -> torch.Tensor:
    """So many steps: x is multiplied by all their polynomials at once, whose product is scale I + rest."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    gram, rest, scale = _square(x.mT if tall else x), None, 1.0
    for step in range(count):
        q = _polynomial(gram, b, c)  # P = a I + q
        rest = q if rest is None else _product(q, rest, rest, a).add_(q, alpha=scale)
        scale *= a
        if step + 1 < count:
            half = _product(q, gram, gram, a)  # P G
            gram = _product(half, q, half, a)  # P G P
    assert rest is not None
    return _product(x, rest, x, scale) if tall else _product(rest, x, x, scale)


def _product(
    left: torch.Tensor, right: torch.Tensor, plus: torch.Tensor, factor: float, alpha: float = 1.0
) -> torch.Tensor:
    """alpha left @ right + factor plus, rounded once."""
    add = torch.addmm if left.dim() == 2 else torch.baddbmm
    return add(plus, left, right, beta=factor, alpha=alpha)


def _polynomial(gram: torch.Tensor, b: float, c: float) -> torch.Tensor:
    """b G + c G^2 of a symmetric G."""
    if _in_blocks(gram):
        return _square(gram).mul_(c).add_(gram, alpha=b)
    return _product(gram, gram.mT, gram, b, alpha=c)


def _in_blocks(x: torch.Tensor) -> bool:
    """Whether it pays to mirror a quarter of x x^T: of large ones, but bf16 on a CPU is faster whole."""
    return x.shape[-2] >= _BLOCKS and (x.dtype != torch.bfloat16 or x.device.type != "cpu")


def _square(x: torch.Tensor) -> torch.Tensor:
    """x @ x^T."""
    if not _in_blocks(x):
        return x @ x.mT
    rows = x.shape[-2]
    half = rows // 2
    upper, lower = x[..., :half, :], x[..., half:, :]
    below = lower @ x.mT
    out = x.new_empty(*x.shape[:-1], rows)
    out[..., half:, :] = below
    out[..., :half, half:] = below[..., :half].mT
    out[..., :half, :half] = upper @ upper.mT
    return out
