"""Causal attention: `causal_attention` takes the best path that torch has on the device at hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k' / sqrt(D), causal) v, in Megatron's order.

    q: [T, B, H, D]; k, v: [S, B, KV, D] with S >= T, and KV a divisor of H, consecutive query heads sharing one.
    The queries are those of the last T of the S positions. Returns [T, B, H, D]. Equal to
    `reference.causal_attention` up to rounding.
    """
    before = k.shape[0] - q.shape[0]
    q, k, v = (x.permute(1, 2, 0, 3) for x in (q, k, v))  # [B, H, T, D]
    mask = None
    if before:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(before)
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)
    return out.permute(2, 0, 1, 3)
