"""What a run trains towards: from a model and a batch to a summed loss.

* `Objective` is all that the engine knows of it; a stage brings its own.
* `NextToken` is that of pretraining, and with weights in the batches that of finetuning.

The ranks that share a batch (tensor- and context-parallel) call an objective together, on the same whole rows. What
the model gives is the same on all of them, so what is made of it is, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from megatron_iberis.data.batches import Batch

Figures = Mapping[str, torch.Tensor | float]
"""Scalars by name, sums over a batch as the loss is; the same names on every rank and for every batch."""


class Objective(Protocol):
    """Loss and figures as sums over a batch, and what makes means of the sums."""

    def count(self, batch: Batch) -> float:
        """What the batch adds to the number that the sums of a step are divided by: targets, say, or pairs.

        It is asked before the forward pass, for gradients are scaled by it, of a batch that is on the CPU still.
        """

    def __call__(self, model: Callable[..., torch.Tensor], batch: Batch) -> tuple[torch.Tensor, Figures]:
        """The summed loss, an fp32 scalar that has a gradient, and figures to be shown.

        model: called as `Iberis.forward` is; at least once, and as often on every rank. batch: on the model's device.
        """


@dataclass(frozen=True)
class NextToken:
    """Cross entropy of each next token in nats, a weighted mean over the step where batches have weights (>= 0)."""

    def count(self, batch: Batch) -> float:
        counted = batch.targets.numpy() >= 0
        if batch.weights is None:
            return float(counted.sum())
        return float(batch.weights.numpy().sum(dtype=np.float64, where=counted))

    def __call__(self, model: Callable[..., torch.Tensor], batch: Batch) -> tuple[torch.Tensor, Figures]:
        return model(batch.tokens, batch.targets, batch.documents, batch.weights), {}
