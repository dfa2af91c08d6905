"""Attention of single queries on a CPU in C++ (csrc/decode/attention.h), for all requests in one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from megatron_iberis import _C
from megatron_iberis.kernels.arrays import array
from megatron_iberis.kernels.cpu_threads import default_threads

NAME = "native"


def single_query_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    starts: Sequence[int],
    lengths: Sequence[int],
    threads: int = 0,
    fast: bool = True,
) -> torch.Tensor:
    """q: [B, H, D]; keys, values: [R, KV, D] -> [B, H, D].

    threads: at most so many, by default as many as this process may use: it does not change a bit. fast: by the best
    instructions that the CPU has.
    """
    out = torch.empty(q.shape, dtype=q.dtype)
    first, count = (np.asarray(x, dtype=np.int64) for x in (starts, lengths))
    q, keys, values = (x.contiguous() for x in (q, keys, values))
    _C.single_query_attention(
        array(q), array(keys), array(values), first, count, array(out), threads or default_threads(), fast
    )
    return out
