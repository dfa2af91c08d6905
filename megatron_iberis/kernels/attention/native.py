"""Attention of single queries on a CPU in C++ (csrc/decode/attention.h), for all requests in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from megatron_iberis import _C
from megatron_iberis.kernels.cpu_threads import usable_cpus

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
    _C.single_query_attention(
        _array(q), _array(keys), _array(values), first, count, _array(out), threads or _threads(), fast
    )
    return out


def _array(x: torch.Tensor) -> np.ndarray:
    x = x.detach().contiguous()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


@cache
def _threads() -> int:
    return usable_cpus()
