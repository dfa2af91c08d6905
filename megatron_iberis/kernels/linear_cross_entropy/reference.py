"""Head, soft cap and cross entropy in a few lines, as the oracle for the chunked version. Exact in fp64."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Summed negative log likelihood, in nats. hidden: [N, E], weight: [V, E], targets: [N], -1 is ignored.

    weights: what each token counts, [N].
    """
    likelihoods = token_log_likelihoods(hidden, weight, targets, softcap)
    return -(likelihoods if weights is None else likelihoods * weights).sum()


def token_log_likelihoods(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, softcap: float, temperature: float = 1.0
) -> torch.Tensor:
    """The log likelihood of each target, [N], 0 for ignored ones."""
    raw = F.linear(hidden, weight)
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    logits = softcap * torch.tanh(raw / softcap) / temperature
    return -F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
