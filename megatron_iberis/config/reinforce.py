"""Section [reinforce]: answers that a model gives itself, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from megatron_iberis.config.checks import Above, AtLeast, AtMost, require

_LARGEST_EXPONENT = 87
"""Of what an fp32 number can hold."""


@dataclass(frozen=True)
class ReinforceConfig:
    """Answers that the model gives itself, and what they are worth."""

    samples: Annotated[int, AtLeast(2)] = 16
    """Answers to each prompt, its group: what one is worth is told by the mean of the others and itself."""
    temperature: Annotated[float, Above(0), AtMost(100)] = 1.0
    """Divides the logits, when answers are drawn and when they are trained on. There is no other setting of drawing:
    what top_k or top_p left out would have another likelihood in training."""
    answer_tokens: Annotated[int, AtLeast(1)] = 256
    """Tokens of an answer at most; one that is cut there is worth nothing."""
    tools: bool = True
    """Whether the calculator answers its calls. What it says is not trained on."""
    reward: str = ""
    """What an answer is worth: a function (prompt, completion, answer) -> float by its module path, "module:name", or
    "number", "exact", "spelling"; empty: the mark of the prompt's own task."""
    refill: Annotated[int, AtLeast(1)] = 4
    """Prompts of a step at most, as a multiple of the groups that it trains on: where all answers of a group are
    worth the same there is nothing to learn from it, and another prompt takes its place."""
    updates: Annotated[int, AtLeast(1)] = 1
    """Steps on each batch of answers; from 2 on with clipped ratios."""
    clip: Annotated[float, Above(0), AtMost(1)] = 0.2
    """How much less likely than when it was drawn a token may become within these steps (ratio 1 - clip)."""
    clip_high: Annotated[float, Above(0), AtMost(100)] = 0.28
    """How much likelier (ratio 1 + clip_high)."""
    filter_samples: Annotated[int, AtLeast(0)] = 0
    """Answers to each prompt before the first step, to keep the prompts that are answered rightly now and then; 0:
    all are kept."""
    filter_most: Annotated[float, Above(0), AtMost(1)] = 0.9
    """Prompts whose answers are worth more than that on average are left out by the filter."""
    val_samples: Annotated[int, AtLeast(1)] = 8
    """Answers to each held-out prompt."""
    val_prompts: Annotated[int, AtLeast(0)] = 400
    """Held-out prompts at most; 0: all."""
    active: bool = False
    """Whether the run learns in this way: its stage sets it itself, so that a recipe tells (config/stage.py)."""

    def check(self, softcap: float) -> None:
        """InputError for a temperature at which likelihoods can't be held in fp32."""
        require(
            2 * softcap / self.temperature <= _LARGEST_EXPONENT,
            f"reinforce.temperature {self.temperature} is too low for logits up to {softcap:g}: set it to "
            f"{2 * softcap / _LARGEST_EXPONENT:.2f} or more.",
        )
