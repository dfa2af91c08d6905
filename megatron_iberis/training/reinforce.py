"""Policy gradient (REINFORCE): answers that were worth more than their group's mean become likelier, others less.

* One denominator, the trained tokens of the whole step: each of them counts the same, in long answers and short ones.
* On-policy there is no ratio. Where answers are trained on more than once, the ratio to the probability that a token
  was drawn with is clipped (Schulman et al., arXiv 1707.06347; apart above and below as in DAPO, arXiv 2503.14476).
* The group's mean is taken off, not its deviation divided out (Liu et al., arXiv 2503.20783).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from megatron_iberis.data.batches import Batch
from megatron_iberis.training.objectives import Figures

ADVANTAGES, DRAWN = "advantages", "drawn"
"""In `Batch.more`, fp32 [B, T]: what each target's answer is worth beside others, and the log-probability with which
the target was drawn."""


@dataclass(frozen=True)
class PolicyGradient:
    """The objective. clip: how far the ratio may go below and above 1; None: there is none, on-policy."""

    temperature: float = 1.0
    clip: tuple[float, float] | None = None

    def count(self, batch: Batch) -> float:
        """Its trained tokens."""
        return float((batch.targets.numpy() >= 0).sum())

    def __call__(self, model: Callable[..., torch.Tensor], batch: Batch) -> tuple[torch.Tensor, Figures]:
        """The summed loss, and sums over trained tokens: entropy (of what was drawn), and how far the probabilities
        of drawing and of training are apart, as a mean relative error and as KL divergence.
        """
        found = model(batch.tokens, batch.targets, batch.documents, per_token=True, temperature=self.temperature)
        trained, advantages, drawn = batch.targets >= 0, batch.more[ADVANTAGES], batch.more[DRAWN]
        difference = torch.where(trained, found - drawn, 0.0)
        ratio = difference.exp()
        if self.clip is None:
            loss = -(advantages * found)
            clipped = torch.zeros_like(loss)
        else:
            below, above = self.clip
            bounded = ratio.clamp(1 - below, 1 + above)
            loss = -torch.minimum(ratio * advantages, bounded * advantages)
            clipped = (bounded * advantages < ratio * advantages).float()
        apart = difference.detach().double()
        return torch.where(trained, loss, 0.0).sum(), {
            "entropy": -torch.where(trained, drawn, 0.0).sum(),
            "probability_error": apart.expm1().abs().sum(),
            "kl": (apart.expm1() - apart).sum(),
            "clipped": torch.where(trained, clipped, 0.0).sum(),
        }
