"""Attention inside documents on a GPU: all documents of all rows in one call of a flash-attention kernel."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from itertools import accumulate
from typing import Any

import torch

from megatron_iberis.kernels.attention.lengths import lengths_of_end

NAME = "varlen"
LARGEST_HEAD = 256


def takes(q: torch.Tensor) -> bool:
    """Whether there is a kernel that does: they are for GPUs and half precision."""
    half = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)
    return half and q.shape[-1] % 8 == 0 and q.shape[-1] <= LARGEST_HEAD and kernel() is not None


@cache
def kernel() -> Any:
    """torch's, of versions whose function has what is asked for here; None in others."""
    try:
        found = import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError):
        return None
    return found if {"window_size", "enable_gqa"} <= inspect.signature(found).parameters.keys() else None


def document_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Sequence[Sequence[int]]
) -> torch.Tensor:
    """q: [T, B, H, D]; k, v: [S, B, KV, D]; lengths of each row's documents, S in sum -> [T, B, H, D].

    The kernel counts causality from a document's end, as queries of a row's last places ask for.
    """
    time, batch = q.shape[:2]
    documents = [length for row in lengths for length in row]
    queries = [n for row in lengths for n in lengths_of_end(row, time)]
    asked = [(n, length) for n, length in zip(queries, documents, strict=True) if n]
    if len(asked) < len(documents):  # what comes before a chunk and has no part in it
        k, v = (_of_documents(x, documents, queries) for x in (k, v))
    else:
        k, v = (x.transpose(0, 1).flatten(0, 1) for x in (k, v))
    counts, sizes = zip(*asked, strict=True)
    out: torch.Tensor = kernel()(
        q.transpose(0, 1).flatten(0, 1),  # [B * T, H, D]
        k,
        v,
        _borders(counts, q.device),
        _borders(sizes, q.device),
        max(counts),
        max(sizes),
        window_size=(-1, 0),
        enable_gqa=q.shape[2] != k.shape[1],
    )
    return out.unflatten(0, (batch, time)).transpose(0, 1)


def _of_documents(x: torch.Tensor, documents: list[int], queries: list[int]) -> torch.Tensor:
    """[S, B, KV, D] -> the documents that are asked about, strung together."""
    parts = x.transpose(0, 1).flatten(0, 1).split(documents)
    return torch.cat([part for part, n in zip(parts, queries, strict=True) if n])


def _borders(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """0 and where each document ends, int32; the host does not wait for the copy."""
    borders = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return (borders.pin_memory() if device.type == "cuda" else borders).to(device, non_blocking=True)
