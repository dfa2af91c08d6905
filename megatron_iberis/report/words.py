"""Numbers as a reader takes them in: 5.1 million, 2 h 05 min, 41.20 ± 1.40."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_iberis.evaluation.benchmark import Measure
from megatron_iberis.monitor.console import duration

__all__ = ["amount", "dollars", "duration", "listed", "many", "points", "score"]

_LARGE = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def amount(number: float) -> str:
    """Three digits of a large number, a small one whole: "542 million", "12,345"."""
    for size, name in _LARGE:
        if number >= 0.9995 * size:
            value = number / size
            return f"{value:.0f} {name}" if value >= 99.95 else f"{value:.3g} {name}"
    return f"{number:,.0f}"


def many(number: float, one: str, several: str = "") -> str:
    """With its noun: "1 layer", "2 layers"."""
    return f"{amount(number)} {one if number == 1 else several or one + 's'}"


def points(value: float | None) -> str:
    """A share of 1 in points."""
    return "" if value is None else f"{100 * value:.2f}"


def score(value: float, error: float | None, at_chance: bool = False) -> str:
    """A score and its standard error in points, as `iberis eval` prints them; ~ where it may be chance."""
    return f"{100 * value:.2f} ± {100 * (error or 0.0):.2f}{' ~' if at_chance else ''}"


def measured(measure: Measure) -> str:
    """The score of a task; empty where it has none."""
    return "" if measure.score is None else score(measure.score, measure.error, measure.at_chance)


def dollars(seconds: float, price: float) -> str:
    """What so long costs at a price per hour."""
    return f"${seconds / 3600 * price:,.2f}"


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""
