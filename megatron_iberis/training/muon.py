"""Muon's update direction for whole matrices, whose gradients lie in pieces on many ranks.

Ranks send their pieces of the gradient to the matrices' owners, the owners orthogonalise, the results go back
(`sharding.exchange`). So the update is that of one process whatever tensor parallelism and ZeRO do, and no
matrix is orthogonalised twice. Messages are in the precision of Newton-Schulz.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch

from megatron_iberis.sharding.exchange import Exchange
from megatron_iberis.training.newton_schulz import batch_size, orthogonalize


def muon_directions(gradients: Sequence[torch.Tensor], exchange: Exchange, steps: int, dtype: torch.dtype) -> None:
    """Puts orthogonal factors x sqrt(max(1, rows / cols)) in the place of the (momentum-averaged) gradients.

    Called by all ranks together. Matrices of one shape are taken in batches.
    """
    exchange.clear_gaps(gradients)
    sent = exchange.gather_cut(gradients, dtype)
    matrices = exchange.in_place(gradients) | sent
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, matrix in matrices.items():
        by_shape[tuple(matrix.shape)].append(name)
    for (rows, cols), names in by_shape.items():
        scale = math.sqrt(max(1.0, rows / cols))
        size = batch_size((rows, cols), dtype, exchange.device.type) or len(names)
        for batch in (names[i : i + size] for i in range(0, len(names), size)):
            each = [matrices[name].to(exchange.device, dtype) for name in batch]
            found = orthogonalize(each[0] if len(batch) == 1 else torch.stack(each), steps).mul_(scale)
            for name, direction in zip(batch, [found] if len(batch) == 1 else found, strict=True):
                matrices[name].copy_(direction)
    exchange.scatter_cut(sent, gradients, dtype)
