"""What is asked of a model, and what it replies: ids and numbers, to be kept and marked again. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Likelihood:
    """How likely are ids[start:], each after all that stands before it? start: at least 1, below len(ids)."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Letters:
    """How likely is each of `letters`, ids, to be the next after `ids`?"""

    ids: tuple[int, ...]
    letters: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What follows `ids`, the likeliest token each time, at most so many, to a stop string or the end of the turn.

    tools: the calculator's results are put in.
    """

    ids: tuple[int, ...]
    tokens: int
    stop: tuple[str, ...] = ()
    tools: bool = False


Question: TypeAlias = Likelihood | Letters | Answer


@dataclass(frozen=True)
class Reply:
    """To a `Likelihood` or `Letters`: nats, at most 0. To an `Answer`: ids (with the calculator's) and text."""

    logprobs: tuple[float, ...] = ()
    greedy: bool = False
    """To a `Likelihood`: each of the tokens is the likeliest one at its place."""
    ids: tuple[int, ...] = ()
    text: str = ""
    finish: str = ""
    """Why an answer is over: "stop" or "length"."""

    @property
    def total(self) -> float:
        """Nats of all tokens together, at most 0."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.total / len(self.logprobs)

    def as_json(self) -> dict[str, Any]:
        """What differs from an empty reply."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Reply:
        """The reply that `as_json` was made of."""
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
        return cls(**values)

    def rounded(self) -> Reply:
        """As it is kept: log-probabilities to 6 decimals. What is marked first and what is marked again are equal."""
        return Reply(tuple(round(x, 6) for x in self.logprobs), self.greedy, self.ids, self.text, self.finish)


def shared_beginning(sequences: list[tuple[int, ...]]) -> int:
    """How many ids all of them begin with."""
    return next(
        (i for i, ids in enumerate(zip(*sequences, strict=False)) if len(set(ids)) > 1),
        min(map(len, sequences), default=0),
    )
