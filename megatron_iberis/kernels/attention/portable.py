"""Causal attention by torch's `scaled_dot_product_attention`, which takes the best path that the device has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from megatron_iberis.kernels.attention.lengths import lengths_of_end

NAME = "sdpa"


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q: [T, B, H, D]; k, v: [S, B, KV, D] -> [T, B, H, D]."""
    before = k.shape[0] - q.shape[0]
    q, k, v = (x.permute(1, 2, 0, 3) for x in (q, k, v))  # [B, H, T, D]
    mask = None
    if before and q.shape[2] > 1:  # a single query sees all
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(before)
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=not before, enable_gqa=grouped)
    return out.permute(2, 0, 1, 3)


def document_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Sequence[Sequence[int]]
) -> torch.Tensor:
    """As `causal_attention`, document by document: nothing is worked out that a mask would then hide."""
    time, batch = q.shape[:2]
    documents = [length for row in lengths for length in row]
    queries = [n for row in lengths for n in lengths_of_end(row, time)]
    parts = [
        causal_attention(*(x.unsqueeze(1) for x in document)).squeeze(1)
        for document in zip(_split(q, queries), _split(k, documents), _split(v, documents), strict=True)
        if len(document[0])
    ]
    return torch.cat(parts).unflatten(0, (batch, time)).transpose(0, 1)


def single_query_attention(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, starts: Sequence[int], lengths: Sequence[int]
) -> torch.Tensor:
    """q: [B, H, D]; keys, values: [R, KV, D] -> [B, H, D], request by request."""
    out = torch.empty_like(q)
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        rows = slice(start, start + length)
        out[i] = causal_attention(q[i, None, None], keys[rows, None], values[rows, None])[0, 0]
    return out


def _split(x: torch.Tensor, lengths: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """[T, B, h, D] -> documents [n, h, D], row by row. One split: slices would each have a gradient of x's size."""
    return x.transpose(0, 1).flatten(0, 1).split(list(lengths))
