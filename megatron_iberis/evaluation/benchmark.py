"""`Benchmark`: items that are asked and marked; and what all marks together are worth, with their standard error."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from megatron_iberis.evaluation.questions import Question, Reply


@dataclass(frozen=True)
class Marked:
    """score: 0 to 1, None where an item has none. found: the answer that was read out of the replies; gold: the right
    one. nats, bytes: what the model needs for a text (the right answer, say), and that text's UTF-8 bytes. others:
    scores by other rules, by name.
    """

    score: float | None
    found: str | None
    gold: str
    nats: float = 0.0
    bytes: int = 0
    others: Mapping[str, float] = field(default_factory=dict)


class Benchmark(Protocol):
    """chance: the score without knowledge. settings: what else decides the score, for the result."""

    name: str
    chance: float
    settings: Mapping[str, Any]

    def __len__(self) -> int: ...

    def ask(self, index: int) -> list[Question]:
        """The questions of an item; the same at any time."""
        ...

    def mark(self, index: int, replies: Sequence[Reply]) -> Marked:
        """What they are worth: a function of the replies alone, so that it can be done again."""
        ...


@dataclass(frozen=True)
class Measure:
    """A benchmark's score, and its standard error. bits_per_byte: of the texts that were scored, with its error."""

    name: str
    n: int
    score: float | None
    error: float | None
    chance: float
    bits_per_byte: float | None = None
    bits_error: float | None = None
    balanced: float | None = None
    """Mean over the right answers' kinds of the score on each: what a model that always says one thing can't lift."""
    finish: Mapping[str, float] = field(default_factory=dict)
    """Shares of the reasons why answers were over."""
    others: Mapping[str, float] = field(default_factory=dict)
    """Scores by other rules."""
    beyond_context: int = 0
    """Items with more tokens than the context that the model was trained on."""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def above_chance(self) -> bool:
        """Two standard errors away at least; where it is known, of the score with answers balanced."""
        return self._beyond_chance > 1

    @property
    def at_chance(self) -> bool:
        """The score cannot be told from chance, or from that of a model that always says one thing."""
        return self._measured and abs(self._beyond_chance) <= 1

    @property
    def _measured(self) -> bool:
        return self.score is not None and self.error is not None and self.n > 0

    @property
    def _beyond_chance(self) -> float:
        """In units of two errors; the error at chance counts where it is larger (0 of 5 has none)."""
        if not self._measured:
            return 0.0
        score = self.score if self.balanced is None else self.balanced
        error = max(self.error or 0.0, math.sqrt(self.chance * (1 - self.chance) / self.n))
        away = (score or 0.0) - self.chance
        return away / (2 * error) if error else math.copysign(math.inf, away) if away else 0.0

    def centred(self, chance: float | None = None) -> float:
        """0 at chance (by default its own), 1 where all is right."""
        base = self.chance if chance is None else chance
        return ((self.score or 0.0) - base) / (1 - base)

    def as_json(self) -> dict[str, Any]:
        """For the result; figures that there are none of are left out."""
        found: dict[str, Any] = {
            "n": self.n,
            "score": self.score,
            "standard_error": self.error,
            "chance": self.chance,
        }
        if self.score is not None:
            found |= {"centred": self.centred(), "at_chance": self.at_chance}
        more: dict[str, Any] = {"bits_per_byte": self.bits_per_byte, "bits_per_byte_error": self.bits_error}
        more |= {"balanced": self.balanced, "finish": dict(self.finish) or None}
        more |= {"beyond_context": self.beyond_context or None, "other_scores": dict(self.others) or None}
        return found | {name: value for name, value in more.items() if value is not None} | dict(self.settings)

    @classmethod
    def from_json(cls, name: str, fields: Mapping[str, Any]) -> Measure:
        """Of `as_json`, back. KeyError or TypeError where it is none."""
        rest = dict(fields)
        for worked_out in ("centred", "at_chance"):
            rest.pop(worked_out, None)
        return cls(
            name=name,
            n=rest.pop("n"),
            score=rest.pop("score"),
            error=rest.pop("standard_error"),
            chance=rest.pop("chance"),
            bits_per_byte=rest.pop("bits_per_byte", None),
            bits_error=rest.pop("bits_per_byte_error", None),
            balanced=rest.pop("balanced", None),
            finish=rest.pop("finish", {}),
            others=rest.pop("other_scores", {}),
            beyond_context=rest.pop("beyond_context", 0),
            settings=rest,
        )


def measure(
    benchmark: Benchmark, marks: Sequence[Marked], finishes: Sequence[str] = (), beyond_context: int = 0
) -> Measure:
    """All marks together. finishes: the answers' reasons to be over."""
    scores = [mark.score for mark in marks if mark.score is not None]
    bits, bits_error = _bits_per_byte(marks)
    counts = Counter(finish for finish in finishes if finish)
    return Measure(
        name=benchmark.name,
        n=len(marks),
        score=sum(scores) / len(scores) if scores else None,
        error=standard_error(scores) if scores else None,
        chance=benchmark.chance,
        bits_per_byte=bits,
        bits_error=bits_error,
        balanced=_balanced(marks) if benchmark.settings.get("balanced") else None,
        finish={name: count / counts.total() for name, count in sorted(counts.items())},
        others=_means([mark.others for mark in marks]),
        beyond_context=beyond_context,
        settings={name: value for name, value in benchmark.settings.items() if name != "balanced"},
    )


def standard_error(scores: Sequence[float]) -> float:
    """Of the mean of scores from 0 to 1. One score alone has the largest that its value allows."""
    n, mean = len(scores), sum(scores) / len(scores)
    if n == 1:
        return math.sqrt(mean * (1 - mean))
    return math.sqrt(sum((score - mean) ** 2 for score in scores) / (n - 1) / n)


def _bits_per_byte(marks: Sequence[Marked]) -> tuple[float | None, float | None]:
    """A ratio of sums over items, and its standard error by the usual linearisation."""
    pairs = [(mark.nats / math.log(2), mark.bytes) for mark in marks if mark.bytes]
    if not pairs:
        return None, None
    total, n = sum(count for _, count in pairs), len(pairs)
    ratio = sum(bits for bits, _ in pairs) / total
    squares = sum((bits - ratio * count) ** 2 for bits, count in pairs)
    return ratio, math.sqrt(squares * n / (n - 1)) / total if n > 1 else None


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = sorted({name for each in scores for name in each})
    return {name: sum(each.get(name, 0.0) for each in scores) / len(scores) for name in names}


def _balanced(marks: Sequence[Marked]) -> float | None:
    by_gold = defaultdict(list)
    for mark in marks:
        if mark.score is not None:
            by_gold[mark.gold].append(mark.score)
    return sum(sum(s) / len(s) for s in by_gold.values()) / len(by_gold) if by_gold else None
