"""A task: rows of conversations, and how an answer to one is marked. Data and marking alone: no model, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from megatron_iberis.tokenizer.chat import Message


@dataclass(frozen=True)
class Row:
    """A conversation with its right answer.

    messages: the whole conversation; the last, an assistant's, is the answer. where: "FILE:LINE", to be named in
    errors. options: the texts that can be chosen from, and letters, as the question names them; right: the number of
    the right one; -1: there is nothing to choose. references: texts that count as right. more: what else marking
    needs.
    """

    messages: tuple[Message, ...]
    where: str
    options: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()
    right: int = -1
    references: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """score: 0 to 1. found: the answer as it was read out of the completion, None if there was none."""

    score: float
    found: str | None = None


class Task(Protocol):
    """kind: "conversations" are there to train on only; "choice" by its letters; "generation" by its text."""

    name: str
    language: Literal["en", "ja"]
    kind: Literal["conversations", "choice", "generation"]
    chance: float

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Row: ...
    def mark(self, row: Row, completion: str) -> Mark:
        """The completion's score; InputError for a kind that has none."""
        ...
