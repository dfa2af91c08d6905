"""`Answer` and `Group`: what a model wrote to a prompt, several times, and what that is worth; as lines of a file.

A group's answers are weighed against its own mean: what they all get alike says nothing of what was good about one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_iberis.storage.atomic import json_line, write_atomic


@dataclass(frozen=True)
class Answer:
    """ids: with the id that ended it. drawn: the log-probability that each was drawn with, None where it was forced
    (the calculator's result). finish: "stop", or "length" where it was cut. reward: what it is worth.
    """

    ids: tuple[int, ...]
    drawn: tuple[float | None, ...]
    text: str
    finish: str
    reward: float


@dataclass(frozen=True)
class Group:
    """The answers to one prompt. prompt: its number."""

    prompt: int
    prompt_ids: tuple[int, ...]
    answers: tuple[Answer, ...]

    @property
    def mean(self) -> float:
        return math.fsum(answer.reward for answer in self.answers) / len(self.answers)

    @property
    def tells(self) -> bool:
        """Whether there is anything to learn: not all answers are worth the same."""
        return len({answer.reward for answer in self.answers}) > 1

    def advantages(self) -> list[float]:
        """What each answer is worth beside the group's mean."""
        return [answer.reward - self.mean for answer in self.answers]


def save_groups(path: Path, groups: Iterable[Group], trained: Sequence[Group], where: Mapping[int, str]) -> None:
    """Writes a line an answer. trained: those groups that are trained on. where: each prompt's file and line."""
    kept = {group.prompt for group in trained}
    lines = [
        {
            "prompt": group.prompt,
            "where": where[group.prompt],
            "sample": sample,
            "reward": answer.reward,
            "advantage": advantage,
            "trained": group.prompt in kept,
            "finish": answer.finish,
            "text": answer.text,
            "prompt_ids": group.prompt_ids,
            "ids": answer.ids,
            "drawn": answer.drawn,
        }
        for group in groups
        for sample, (answer, advantage) in enumerate(zip(group.answers, group.advantages(), strict=True))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, b"".join(json_line(line) for line in lines))


def load_trained_groups(path: Path) -> list[Group]:
    """The groups of a file that are trained on, as they were when they were saved."""
    groups: dict[int, list[dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["trained"]:
            groups.setdefault(record["prompt"], []).append(record)
    return [
        Group(prompt, tuple(records[0]["prompt_ids"]), tuple(_answer(record) for record in records))
        for prompt, records in groups.items()
    ]


def _answer(record: Mapping[str, Any]) -> Answer:
    return Answer(
        tuple(record["ids"]), tuple(record["drawn"]), record["text"], record["finish"], float(record["reward"])
    )
