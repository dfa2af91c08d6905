"""`NearCopies`: texts that say nearly the same as an evaluation item, found by MinHash (ordering/similarity.py).

What runs of words can't find: an item in which a word here and there was changed, and one that is too short for them.
A text is compared as a whole, so an item inside a longer one isn't found by this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from megatron_iberis.text.ordering.similarity import hashed_runs, keys_of, normalise
from megatron_iberis.text.overlap.items import Item

ALIKE = 0.7  # share of common runs of 8 characters (Jaccard) from which on two texts are near copies
_SHORTEST = 12  # characters: shorter ones are alike by chance


class Near(NamedTuple):
    """Number of a text, and of the item that it is a near copy of, and the text."""

    text: int
    item: int
    shared: str


class NearCopies:
    """Of items that are given one after the other, numbered from 0 on."""

    def __init__(self, items: Sequence[Item]) -> None:
        pairs = [(i, text) for i, item in enumerate(items) for text in item.texts if len(text) >= _SHORTEST]
        self.texts = [text for _, text in pairs]
        self.numbers = [number for number, _ in pairs]
        self.longest = 2 * max(map(len, self.texts), default=0)
        keys = keys_of(self.texts, "minhash")
        self.order = np.argsort(keys, axis=None, kind="stable")
        self.keys = keys.reshape(-1)[self.order]
        self.owners = self.order // max(1, keys.shape[1])

    def find(self, texts: Sequence[str]) -> Iterator[Near]:
        """Each text with each item that it is a near copy of."""
        if not self.texts:
            return
        chosen = [i for i, text in enumerate(texts) if _SHORTEST <= len(text) <= self.longest]
        keys = keys_of([texts[i] for i in chosen], "minhash")
        firsts = np.searchsorted(self.keys, keys)
        shared = self.keys[np.minimum(firsts, len(self.keys) - 1)] == keys
        for row in np.flatnonzero(shared.any(axis=1)).tolist():
            lasts = np.searchsorted(self.keys, keys[row], side="right")
            owners: set[int] = set()
            for first, last in zip(firsts[row].tolist(), lasts.tolist(), strict=True):
                owners.update(self.owners[first:last].tolist())
            text = texts[chosen[row]]
            own = set(hashed_runs(normalise(text)).tolist())
            near = {self.numbers[owner] for owner in owners if self._alike(own, owner)}
            yield from (Near(chosen[row], item, text) for item in sorted(near))

    def _alike(self, own: set[int], owner: int) -> bool:
        other = set(hashed_runs(normalise(self.texts[owner])).tolist())
        return len(own & other) >= ALIKE * len(own | other)
