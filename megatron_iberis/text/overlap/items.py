"""`EvaluationItems`: the items of evaluation sets, found again in texts by the runs of words that they share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.records import open_records
from megatron_iberis.tasks.task import Row
from megatron_iberis.text.overlap.windows import LENGTHS, Language, Units, has_japanese, units_of
from megatron_iberis.tokenizer.chat import text_of

# A run that so many items of a set share is their form ("Read the passage and answer ..."), not one of them.
_FORM = 10
_FILTER_BITS = 24  # a Bloom filter of as many bytes, asked by a hash's high and low bits: few runs are searched for
_HIGH, _LOW = np.uint64(64 - _FILTER_BITS), np.uint64((1 << _FILTER_BITS) - 1)
_BATCH = 1 << 20  # characters


class Item(NamedTuple):
    """An item: the set that it is of, where it stands, and the texts that it consists of."""

    set_name: str
    where: str
    texts: tuple[str, ...]


class Found(NamedTuple):
    """Number of a text, and of an item that shares a run with it, and the run."""

    text: int
    item: int
    shared: str


@dataclass
class _Runs:
    """Runs of the items in one language: sorted hashes, the item and the length of each."""

    lengths: list[int]
    hashes: np.ndarray
    items: np.ndarray
    filter: np.ndarray


@dataclass
class EvaluationItems:
    """items: all, by number. short: numbers of those that are too short to be looked for by runs."""

    items: list[Item] = field(default_factory=list)
    short: set[int] = field(default_factory=set)
    _parts: dict[Language, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = field(default_factory=dict)
    _runs: dict[Language, _Runs] = field(default_factory=dict)

    def add(self, items: Sequence[Item], language: Language | None = None) -> None:
        """Adds the items of one set. language: None, Japanese if half of them hold kana or kanji."""
        if not items:
            return
        if language is None:
            language = "ja" if 2 * sum(any(map(has_japanese, item.texts)) for item in items) >= len(items) else "en"
        first = len(self.items)
        self.items += items
        parts = [_runs_of(batch, language) for batch in _batches(items, first)]
        hashes, numbers, lengths = (np.concatenate([part[i] for part in parts]) for i in range(3))
        hashes, numbers, lengths = _without_form(hashes, numbers, lengths)
        self.short |= set(range(first, len(self.items))) - set(np.unique(numbers).tolist())
        self._parts.setdefault(language, []).append((hashes, numbers, lengths))
        self._runs.pop(language, None)

    def find(self, texts: Sequence[str]) -> Iterator[Found]:
        """Each item that shares a run with one of the texts: once a text."""
        for language in self._parts:
            chosen = [i for i, text in enumerate(texts) if language != "ja" or has_japanese(text)]
            if chosen:
                units = units_of([texts[i] for i in chosen], language)
                yield from (found._replace(text=chosen[found.text]) for found in self._find(units, language))

    def _find(self, units: Units, language: Language) -> Iterator[Found]:
        runs = self._runs.get(language) or self._sorted(language)
        seen: set[tuple[int, int]] = set()
        for length in runs.lengths:
            hashes = units.hashes(length)
            places = np.flatnonzero(runs.filter[hashes >> _HIGH])
            places = units.within(places[runs.filter[hashes[places] & _LOW]], length)
            firsts = np.searchsorted(runs.hashes, hashes[places], side="left")
            lasts = np.searchsorted(runs.hashes, hashes[places], side="right")
            for i in np.flatnonzero(lasts > firsts).tolist():
                place = int(places[i])
                text = int(units.text[place])
                for item in runs.items[firsts[i] : lasts[i]].tolist():
                    if (text, item) not in seen:
                        seen.add((text, item))
                        yield Found(text, item, units.shown(place, length))

    def _sorted(self, language: Language) -> _Runs:
        hashes, items, lengths = (np.concatenate([part[i] for part in self._parts[language]]) for i in range(3))
        order = np.argsort(hashes, kind="stable")
        table = np.zeros(1 << _FILTER_BITS, bool)
        table[hashes >> _HIGH] = table[hashes & _LOW] = True
        self._runs[language] = _Runs(sorted(set(lengths.tolist())), hashes[order], items[order], table)
        return self._runs[language]


def _batches(items: Sequence[Item], first: int) -> Iterator[list[tuple[int, str]]]:
    """(Number of the item, text), so many together that numpy's calls cost nothing."""
    batch: list[tuple[int, str]] = []
    size = 0
    for number, item in enumerate(items, first):
        batch += [(number, text) for text in item.texts]
        size += sum(map(len, item.texts))
        if size > _BATCH:
            yield batch
            batch, size = [], 0
    yield batch


def _runs_of(batch: list[tuple[int, str]], language: Language) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of runs, the item that each is of, and its length."""
    units = units_of([text for _, text in batch], language)
    item_of = np.array([number for number, _ in batch], np.int64)
    known = np.array((0, *LENGTHS[language]))
    own = known[np.searchsorted(known, np.bincount(units.text, minlength=len(batch)), side="right") - 1]
    hashes, numbers, lengths = [], [], []
    for length in LENGTHS[language]:
        found = units.hashes(length)
        places = units.within(np.arange(len(found)), length)
        places = places[own[units.text[places]] == length]
        hashes.append(found[places])
        numbers.append(item_of[units.text[places]])
        lengths.append(np.full(len(places), length))
    return np.concatenate(hashes), np.concatenate(numbers), np.concatenate(lengths)


def _without_form(
    hashes: np.ndarray, numbers: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each run of an item once, and none that more than _FORM items share."""
    order = np.lexsort((numbers, hashes))
    hashes, numbers, lengths = hashes[order], numbers[order], lengths[order]
    first = np.ones(len(hashes), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (numbers[1:] != numbers[:-1])
    hashes, numbers, lengths = hashes[first], numbers[first], lengths[first]
    _, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    own = counts[which] <= _FORM
    return hashes[own], numbers[own], lengths[own]


def items_of(set_name: str, rows: Iterable[Row]) -> list[Item]:
    """The items of a task: question and passage as they were published, without the words that ask for an answer."""
    return [Item(set_name, row.where, _texts(row)) for row in rows]


def file_items(set_name: str, path: Path, key: str) -> list[Item]:
    """The items of a file, a row each, whose text is under `key`. InputError if there is no file, row or text."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the name.")
    records = open_records([path])
    rows = [records[number] for number in range(len(records))]
    return [Item(set_name, row.where, (row.text(key),)) for row in rows]


def _texts(row: Row) -> tuple[str, ...]:
    more = row.more
    if "before" in more and "after" in more:  # a schema: the sentence with what is right in its place
        return (f"{more['before']}{row.options[row.right]}{more['after']}",)
    texts = [str(more[key]) for key in ("passage", "question") if more.get(key)]
    return tuple(texts) or (text_of(row.messages[-2]["content"]),)
