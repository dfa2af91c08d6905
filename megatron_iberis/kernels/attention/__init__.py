"""Causal attention, to whole rows (`causal_attention`) or inside each of their documents (`document_attention`), and
that of one token of each of several requests (`single_query_attention`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from megatron_iberis.kernels.attention import native, varlen
from megatron_iberis.kernels.attention import portable as implementation


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k' / sqrt(D), causal) v, in Megatron's order.

    q: [T, B, H, D]; k, v: [S, B, KV, D] with S >= T, and KV a divisor of H, consecutive query heads sharing one.
    The queries are those of the last T of the S positions: keys and values of what precedes them come first.
    Returns [T, B, H, D]. Equal to `reference.causal_attention` up to rounding.
    """
    return implementation.causal_attention(q, k, v)


def document_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: Sequence[Sequence[int]]
) -> torch.Tensor:
    """As `causal_attention`, but no token attends to another document's.

    lengths: for each of the B rows the lengths of its documents, one after the other, S in sum.
    """
    chosen = varlen if varlen.takes(q) else implementation
    return chosen.document_attention(q, k, v, lengths)


def single_query_attention(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, starts: Sequence[int], lengths: Sequence[int]
) -> torch.Tensor:
    """softmax(q k' / sqrt(D)) v of one query of each request, without gradients.

    q: [B, H, D]; keys, values: [R, KV, D], KV a divisor of H, consecutive query heads sharing one; request b's rows
    are the lengths[b] >= 1 from starts[b] on, and no others are looked at. Returns [B, H, D]. On a CPU in fp32
    a request's result is the same bits whatever the others and the number of threads. Equal to
    `reference.single_query_attention` up to rounding.
    """
    # In bf16 torch rounds weights that ours does not: then a token alone and one in a prompt would be further apart.
    chosen = native if q.is_cpu and q.dtype == torch.float32 else implementation
    return chosen.single_query_attention(q, keys, values, starts, lengths)
