"""Head, soft cap and cross entropy in three lines, as the oracle for the chunked version."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def softcapped_logits(hidden: torch.Tensor, weight: torch.Tensor, softcap: float) -> torch.Tensor:
    """softcap * tanh(hidden weight' / softcap) in fp32. hidden: [..., E], weight: [V, E] -> [..., V]."""
    return softcap * torch.tanh(F.linear(hidden, weight).float() / softcap)


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, softcap: float
) -> torch.Tensor:
    """Summed negative log likelihood, in nats. hidden: [N, E], weight: [V, E], targets: [N], -1 is ignored."""
    logits = softcapped_logits(hidden, weight, softcap)
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
