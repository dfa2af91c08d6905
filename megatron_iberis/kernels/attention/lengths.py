"""Which parts of documents a chunk has."""

from __future__ import annotations

from collections.abc import Sequence


def lengths_of_end(lengths: Sequence[int], count: int) -> list[int]:
    """How much of each document lies in the last `count` places of a row of documents of these lengths."""
    left, inside = count, []
    for length in reversed(lengths):
        inside.append(min(length, left))
        left -= inside[-1]
    return inside[::-1]
