"""Section [preference]: pairs of answers of which one is preferred, and the loss on them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from megatron_iberis.config.checks import AtLeast


@dataclass(frozen=True)
class PreferenceConfig:
    """Pairs of answers of which one is preferred, and the loss on them."""

    data: tuple[str, ...] = ()
    """Files of pairs to train on, a JSON object with prompt, chosen and rejected a line; "a.jsonl|b.jsonl"."""
    val: tuple[str, ...] = ()
    """Held-out files of pairs, looked at every evaluation.every steps; none: there is nothing to look at."""
    loss: Literal["sigmoid", "length_normalised"] = "length_normalised"
    """By the log-probabilities of whole answers, or by their means over the tokens of each."""
    beta: Annotated[float, AtLeast(0)] = 0.0
    """How close the model is kept to the one it began as: the larger, the closer; 0: 0.1 for "sigmoid", 5 for
    "length_normalised"."""
    over_long: Literal["cut", "drop"] = "cut"
    """What is done with a pair that is longer than a row: both answers are cut at their ends, or it is left out."""

    def resolved(self) -> PreferenceConfig:
        """The same with beta decided, and the home folder in the place of each ~ that a path begins with."""
        return replace(
            self,
            data=tuple(map(os.path.expanduser, self.data)),
            val=tuple(map(os.path.expanduser, self.val)),
            beta=self.beta or {"sigmoid": 0.1, "length_normalised": 5.0}[self.loss],
        )
