"""Pairs of answers packed into rows, both documents of a pair side by side.

* The two documents of a pair follow each other in one row, the preferred one first, so that whoever gets a row can
  compare them: of the documents of a row that have targets, each two are a pair. Documents are kept apart, so what
  else is in a row changes nothing of them.
* Rows are filled by best fit, and each comes once an epoch, in an order of the epoch's own. An epoch ends with a
  step: what its last step lacks are rows without targets, so that this step is made of fewer pairs.

No torch here.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.preferences import Pair
from megatron_iberis.data.rows import Place, Rows

REFERENCE = "reference"
"""The name under which rows tell the reference log-probability of each of their documents, fp64."""


def best_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """The numbers of the sizes (none above `room`) that go into each row: the largest first, where least is left.

    Equal ones keep their order, so the same sizes are packed alike everywhere.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (what is left, number of the row), in this order
    for item in sorted(range(len(sizes)), key=lambda each: (-sizes[each], each)):
        place = bisect.bisect_left(open_rows, (sizes[item], -1))
        left, row = open_rows.pop(place) if place < len(open_rows) else (room, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(item)
        bisect.insort(open_rows, (left - sizes[item], row))
    return rows


class PreferenceRows:
    """The pairs in rows of `length` tokens: a `SampleSource` for training, and the same rows in their own order.

    batch: rows of a step. reference: once it is set, fp64 [pairs, 2], the rows tell it document by document under
    `REFERENCE`, 0 of padding.
    """

    def __init__(self, pairs: Sequence[Pair], length: int, batch: int, seed: int = 0) -> None:
        self.pairs, self.length, self.batch = pairs, length, batch
        self.rows = best_fit([pair.size for pair in pairs], length)
        self.reference: npt.NDArray[np.float64] | None = None
        self._order = SampleOrder(max(2, len(self.rows)), 1, seed, shuffle=True)  # a row is a "token" of it

    def __str__(self) -> str:
        tokens = sum(pair.size for pair in self.pairs)
        padded = 1 - tokens / (self.length * len(self.rows))
        return f"{len(self.pairs):,} pairs in {len(self.rows):,} rows, {padded:.1%} of them padding"

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.rows) // self.batch)

    def read(self, first: int, count: int) -> Rows:
        """The samples first .. first + count - 1, one a row."""
        return self._rows([self.pairs_of(sample) for sample in range(first, first + count)])

    def read_in_order(self, first: int, count: int) -> Rows:
        """The rows first .. first + count - 1 of the packing; those that there are not have no targets."""
        return self._rows([self.rows[row] if row < len(self.rows) else [] for row in range(first, first + count)])

    def pairs_in(self, first: int, count: int) -> list[int]:
        """The numbers in `pairs` of those that `read_in_order` gives."""
        return [number for row in self.rows[first : first + count] for number in row]

    def locate(self, sample: int) -> list[Place]:
        """The file and line of each pair of a sample, the line as the number of a document from 0."""
        found = []
        for number in self.pairs_of(sample):
            file, _, line = self.pairs[number].where.rpartition(":")
            found.append(Place(file, 0, int(line) - 1, int(line) - 1))
        return found

    def pairs_of(self, sample: int) -> list[int]:
        """The numbers in `pairs` of those in a sample."""
        epoch, place = divmod(sample, self.steps_per_epoch * self.batch)
        if place >= len(self.rows):
            return []
        row = self._order.offsets(epoch * self._order.samples_per_epoch + place, 1)[0]
        return self.rows[int(row) % len(self.rows)]

    def _rows(self, numbers: Sequence[Sequence[int]]) -> Rows:
        shape = (len(numbers), self.length)
        tokens, targets = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        starts = np.zeros(shape, np.bool_)
        starts[:, 0] = True
        references: list[float] = []
        for row, of_row in enumerate(numbers):
            end = 0
            for number in of_row:
                pair = self.pairs[number]
                for answer in (pair.chosen, pair.rejected):
                    begin, end = end, end + answer.size
                    tokens[row, begin:end], targets[row, begin:end] = answer.ids[:-1], answer.targets
                    starts[row, begin] = True
                if self.reference is not None:
                    references += self.reference[number].tolist()
            if end < self.length:
                starts[row, end] = True
                references.append(0.0)
        more = {} if self.reference is None else {REFERENCE: np.array(references, np.float64)}
        return Rows(tokens, targets, starts, more=more)
