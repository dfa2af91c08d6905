"""Direct preference optimisation: over a reference, the preferred answer is to gain more likelihood than the other.

* `reward` of an answer: beta x (its log-probability - that under the reference model); `length_normalised`: both
  divided by the number of its tokens. Margin of a pair: the preferred answer's reward less the other's. Loss:
  -log sigmoid(margin), ln 2 before the first step.
* Log-probabilities of whole answers are summed in fp64, so that a margin of 0 is 0 to 1e-5 at any layout.

Sources: Rafailov et al., arXiv 2305.18290; length-normalised as in Tulu 3, arXiv 2411.15124.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from megatron_iberis.data.batches import Batch
from megatron_iberis.data.preference_rows import REFERENCE
from megatron_iberis.training.objectives import Figures

Loss = Literal["sigmoid", "length_normalised"]


@dataclass(frozen=True)
class Answers:
    """Of each pair in a batch, the preferred answer's first: [pairs, 2]."""

    log_probabilities: torch.Tensor
    """Nats, fp64, summed over the answer's tokens."""
    lengths: torch.Tensor
    """Tokens of the answers, int64."""


@dataclass(frozen=True)
class PreferenceLoss:
    """The objective. loss: how answers of different lengths are compared. beta: how far the model may leave the
    reference, the smaller the further.
    """

    loss: Loss
    beta: float

    def count(self, batch: Batch) -> float:
        """Its pairs."""
        return float((_of_documents(batch.targets >= 0, batch) > 0).sum()) / 2

    def __call__(self, model: Callable[..., torch.Tensor], batch: Batch) -> tuple[torch.Tensor, Figures]:
        """The summed loss, and the sums of `figures`. The batch holds reference log-probabilities."""
        answers, are_answers = answers_of(model, batch)
        reference = batch.more[REFERENCE][are_answers].view(-1, 2)
        losses, figures = self.figures(answers, reference)
        return losses.sum().float(), {name: values.sum() for name, values in figures.items()}

    def figures(self, answers: Answers, reference: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each pair, and what there is to see of it, all fp64 [pairs].

        reference: log-probabilities under the reference model, fp64 [pairs, 2]. accuracy: whether the margin is
        positive, half where it is 0, as all are at the beginning. ranking: whether the preferred answer is the
        likelier one as it is, whatever the reference says.
        """
        scale = answers.lengths if self.loss == "length_normalised" else torch.ones_like(answers.lengths)
        rewards = self.beta * (answers.log_probabilities - reference) / scale
        margin = rewards[:, 0] - rewards[:, 1]
        found, lengths = answers.log_probabilities.detach(), answers.lengths.double()
        likelihood = found / scale
        return -F.logsigmoid(margin), {
            "margin": margin.detach(),
            "accuracy": _share_above(margin.detach(), torch.zeros_like(margin)),
            "ranking": _share_above(likelihood[:, 0], likelihood[:, 1]),
            "chosen_reward": rewards[:, 0].detach(),
            "rejected_reward": rewards[:, 1].detach(),
            "chosen_log_probability": found[:, 0],
            "rejected_log_probability": found[:, 1],
            "chosen_length": lengths[:, 0],
            "rejected_length": lengths[:, 1],
        }


def answers_of(model: Callable[..., torch.Tensor], batch: Batch) -> tuple[Answers, torch.Tensor]:
    """What the model gives the answers in a batch of `PreferenceRows`, and which of its documents they are, bool."""
    likelihoods = model(batch.tokens, batch.targets, batch.documents, per_token=True)
    lengths = _of_documents(batch.targets >= 0, batch)
    are_answers = lengths > 0
    sums = _of_documents(likelihoods.double(), batch)
    return Answers(sums[are_answers].view(-1, 2), lengths[are_answers].view(-1, 2)), are_answers


def _of_documents(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Sums of [B, T] over each document: [documents]. In the same order of additions whatever the device does."""
    assert batch.documents is not None
    return torch.stack([part.sum() for part in values.flatten().split(batch.documents.diff().tolist())])


def _share_above(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """1 where the first is larger, half where both are equal."""
    return ((first > second).double() + (first >= second).double()) / 2
