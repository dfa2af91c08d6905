"""Causal attention written out, as the oracle for `kernels.attention.causal_attention`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def causal_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, documents: torch.Tensor | None = None
) -> torch.Tensor:
    """As `kernels.attention.causal_attention`: q [T, B, H, D], k and v [S, B, KV, D] -> [T, B, H, D].

    documents: a number for the document of each token, int64 [B, S], none of which attends to another's.
    """
    time, _, heads, size = q.shape
    before = k.shape[0] - time
    k, v = (x.repeat_interleave(heads // x.shape[2], dim=2) for x in (k, v))
    scores = torch.einsum("tbhd,sbhd->bhts", q, k) / math.sqrt(size)
    future = torch.ones(time, before + time, dtype=torch.bool, device=q.device).triu(before + 1)
    hidden = future.expand(q.shape[1], 1, -1, -1)  # [B, 1, T, S]
    if documents is not None:
        hidden = hidden | (documents[:, None, before:, None] != documents[:, None, None, :])
    weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhts,sbhd->tbhd", weights, v)


def single_query_attention(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, starts: Sequence[int], lengths: Sequence[int]
) -> torch.Tensor:
    """As `kernels.attention.single_query_attention`: q [B, H, D], keys and values [R, KV, D] -> [B, H, D]."""
    parts = [
        causal_attention(query[None, None], keys[s : s + n, None], values[s : s + n, None])[0]
        for query, s, n in zip(q, starts, lengths, strict=True)
    ]
    return torch.cat(parts)
