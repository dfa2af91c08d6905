"""A published task: where its files are, how a row of them becomes a conversation, and how it is marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.place import Place
from megatron_iberis.tasks.records import Record, Records, open_records
from megatron_iberis.tasks.task import Mark, Row

Marker = Callable[[Row, str], Mark]
Kind = Literal["conversations", "choice", "generation"]
Language = Literal["en", "ja"]

SEED = 42
"""Of the order in which nanochat takes the rows of a published set: "the first 10,000" are counted in it."""


@dataclass
class RecordTask:
    """A `Task` whose rows are made of records as they are asked for.

    order: the numbers of the records that are its rows. other_marks: other ways to mark, by name.
    """

    name: str
    language: Language
    kind: Kind
    chance: float
    records: Records
    read: Callable[[Record], Row]
    order: Sequence[int] | np.ndarray
    marker: Marker | None = None
    other_marks: Mapping[str, Marker] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Row:
        """InputError naming file and line if the row is broken."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, not {index}")
        return self.read(self.records[int(self.order[index])])

    def mark(self, row: Row, completion: str) -> Mark:
        if self.marker is None:
            raise InputError(f"{self.name} is there to train on and has no marks: evaluate another task.")
        return self.marker(row, completion)


@dataclass(frozen=True)
class Published:
    """What opens a published task. usual: its usual split. open: its files -> records; shuffled: by `SEED`."""

    name: str
    language: Language
    kind: Kind
    chance: float
    place: Place
    usual: str
    read: Callable[[Record], Row]
    marker: Marker | None = None
    other_marks: Mapping[str, Marker] = field(default_factory=dict)
    open: Callable[[Sequence[Path]], Records] = open_records
    shuffled: bool = True

    def __call__(self, split: str = "", root: str = "") -> RecordTask:
        records = self.open(self.place.find(self.name, split or self.usual, root))
        return RecordTask(
            self.name,
            self.language,
            self.kind,
            self.chance,
            records,
            self.read,
            shuffle(len(records)) if self.shuffled else range(len(records)),
            self.marker,
            self.other_marks,
        )


def shuffle(count: int) -> np.ndarray:
    """The numbers below `count` in the order of datasets.Dataset.shuffle(seed=42)."""
    return np.random.default_rng(SEED).permutation(count)


@dataclass(frozen=True)
class ListRecords:
    """Records that were read already."""

    rows: Sequence[Record]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        return self.rows[index]
