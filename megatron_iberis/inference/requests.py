"""`Request`: what is asked of an engine, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from megatron_iberis.inference.sampling import Choice, Sampling
from megatron_iberis.inference.state import State

Finish = Literal["stop", "length", "cancelled", "error"]
Forced = Callable[[int], Sequence[int]]
"""Called with each id of an answer that was chosen: ids that must follow it (a tool's result)."""


@dataclass(frozen=True)
class Token:
    """One of an answer: chosen, or forced into it (then without a choice)."""

    id: int
    choice: Choice | None


class Request:
    """A handle: what was asked, what has come of it, and how it ended. Made by `Engine.submit`."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        sample: int,
        max_tokens: int,
        stop: Sequence[int],
        forced: Forced,
        score_from: int,
        report: Sequence[int],
    ) -> None:
        self.prompt, self.sampling, self.sample = np.array(prompt, dtype=np.int64), sampling, sample
        self.max_tokens, self.stop, self.forced = max_tokens, frozenset(stop), forced
        self.report = report
        self.score_from = score_from
        """The first token of the prompt that is scored; behind its last one: none is."""
        self.prompt_choices: list[Choice] = []
        """Of the prompt's tokens from number `score_from` on: as if the model had chosen them."""
        self.answer: list[Token] = []
        """With the stop id that ended it, if one did."""
        self.cached_tokens = 0
        """Of the prompt, that were not run again."""
        self.finish: Finish | None = None
        self.error: Exception | None = None
        self.state: State | None = None
        """The engine's, while the request runs."""
        self._ids: list[int] = list(prompt)

    @property
    def ids(self) -> list[int]:
        """Prompt and answer."""
        return self._ids

    @property
    def answer_ids(self) -> list[int]:
        """The answer's, without the stop id."""
        ids = self._ids[len(self.prompt) :]
        return ids[:-1] if self.finish == "stop" else ids

    @property
    def reading(self) -> bool:
        """Whether its prompt is being read."""
        return self.state is not None and not self.answer
