"""What sections are checked with: a condition with its message, and bounds that stand beside a field.

    depth: Annotated[int, AtLeast(1)] = 20

says what `check_bounds` refuses and what --help shows. `check()` of a section is left with what relates two settings.
"""

from __future__ import annotations

import operator
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from megatron_iberis.errors import InputError


@dataclass(frozen=True)
class Bound:
    """A limit of a number, with an optional reason that is told along with it."""

    limit: int
    why: str = ""
    words: ClassVar[str]
    compare: ClassVar[Callable[[Any, Any], bool]]

    def holds(self, value: float) -> bool:
        """Whether the value keeps to the limit."""
        return type(self).compare(value, self.limit)

    def __str__(self) -> str:
        return f"{self.words} {self.limit:,}" + (f" ({self.why})" if self.why else "")


class AtLeast(Bound):
    """value >= limit."""

    words, compare = "at least", operator.ge


class Above(Bound):
    """value > limit."""

    words, compare = "above", operator.gt


class AtMost(Bound):
    """value <= limit."""

    words, compare = "at most", operator.le


class Below(Bound):
    """value < limit."""

    words, compare = "below", operator.lt


class Auto:
    """Marks a number that a recipe may leave to be found: "auto", which is kept as 0."""


def automatic(section_type: type) -> set[str]:
    """The fields of a section that may be "auto"."""
    hints = typing.get_type_hints(section_type, include_extras=True)
    return {name for name, hint in hints.items() if Auto in getattr(hint, "__metadata__", ())}


def bounds_of(section_type: type) -> dict[str, tuple[Bound, ...]]:
    """The bounds of each field of a section, in the order of the fields."""
    hints = typing.get_type_hints(section_type, include_extras=True)
    found = {
        name: tuple(b for b in getattr(hint, "__metadata__", ()) if isinstance(b, Bound))
        for name, hint in hints.items()
    }
    return {name: bounds for name, bounds in found.items() if bounds}


def spoken(bounds: tuple[Bound, ...]) -> str:
    """The bounds in words: "at least 1 and at most 40"."""
    return " and ".join(map(str, bounds))


def check_bounds(section: str, config: Any, names: Collection[str] = ()) -> None:
    """Raises InputError for the first field (of those named, by default of all) that is out of its bounds."""
    for name, bounds in bounds_of(type(config)).items():
        value = getattr(config, name)
        require(
            (bool(names) and name not in names) or all(bound.holds(value) for bound in bounds),
            f"{section}.{name} is {value}: it must be {spoken(bounds)}.",
        )


def require(condition: bool, message: str) -> None:
    """Raises InputError(message) unless the condition holds."""
    if not condition:
        raise InputError(message)


def divisors(number: int) -> str:
    """The divisors of a small number as text, "1, 2, 5 or 10", for messages that offer a fix."""
    found = [str(d) for d in range(1, number + 1) if number % d == 0]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"
