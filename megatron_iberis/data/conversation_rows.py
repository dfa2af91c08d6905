"""Rows of conversations, packed whole or strung together, and the steps that an epoch of them makes.

* "best_fit": each conversation lies whole in one row; its first token is nobody's target, so that a row of several
  trains as rows of one each do. "concat": back to back, as in pretraining.
* An epoch is a whole number of steps: what the last one lacks are rows without targets, and since a step's loss is a
  mean over its targets, the rows that are there count as much as any. The place in the data is the step, also at the
  border of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from megatron_iberis.data.conversations import RenderedConversations
from megatron_iberis.data.order.best_fit import open_packing
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.rows import Piece, Place, Rows, best_fit_pieces, place_of
from megatron_iberis.errors import InputError


@dataclass(frozen=True)
class ConversationLayout:
    """How rows are made of conversations. batch: rows of a step."""

    sequence_length: int
    packing: Literal["concat", "best_fit"]
    document_mask: bool
    loss_on: Literal["assistant", "all"]
    seed: int
    batch: int

    @property
    def row_tokens(self) -> int:
        """The most tokens that a conversation may have; 0: any number."""
        return self.sequence_length + 1 if self.packing == "best_fit" else 0


class ConversationRows:
    """A `SampleSource`: sample n is row n mod R of epoch n / R, R being `samples_per_epoch`, a multiple of the batch.

    The samples of an epoch from `rows` on are empty.
    """

    def __init__(self, conversations: RenderedConversations, layout: ConversationLayout) -> None:
        self.conversations, self.layout, self.file = conversations, layout, conversations.file
        self.rows, self._pieces = _packed(self) if layout.packing == "best_fit" else _strung(self)

    @property
    def samples_per_epoch(self) -> int:
        return self.steps_per_epoch * self.layout.batch

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.layout.batch)

    def __str__(self) -> str:
        """What there is in a line."""
        file, filled = self.file, self.file.num_tokens
        text = f"{filled:,} tokens in {file.num_documents:,} conversations, {self.rows:,} rows an epoch"
        if self.layout.packing == "best_fit":
            places = self.rows * self.layout.row_tokens
            text += f", {1 - filled / places:.1%} of them padding"
        return text

    def read(self, first: int, count: int) -> Rows:
        """The samples first .. first + count - 1, one a row."""
        size = self.layout.sequence_length + 1
        tokens, starts = np.zeros((count, size), np.int64), np.zeros((count, size), np.bool_)
        wanted = np.zeros((count, size), np.bool_)  # as a target
        for row in range(count):
            end = 0
            for piece in self.pieces_of(first + row):
                begin, end = end, end + piece.length
                tokens[row, begin:end] = self.file.tokens(piece.offset, piece.length)
                wanted[row, begin:end] = self._wanted(piece)
                if self.layout.document_mask:
                    self._mark_starts(piece, starts[row, begin:end])
            starts[row, end : end + 1] = True  # padding looks at nobody
        starts[:, 0] = True
        targets = np.where(wanted[:, 1:], tokens[:, 1:], -1)
        return Rows(tokens[:, :-1].copy(), targets, starts[:, :-1].copy() if self.layout.document_mask else None)

    def locate(self, sample: int) -> list[Place]:
        """Where the sample's conversations lie in the token file."""
        return [place_of(self.file, piece.offset, piece.length) for piece in self.pieces_of(sample)]

    def pieces_of(self, sample: int) -> Iterable[Piece]:
        """Where in the token file the sample's tokens lie: in all T + 1 of them at most, and none of an empty one."""
        epoch, place = divmod(sample, self.samples_per_epoch)
        return self._pieces(epoch * self.rows + place) if place < self.rows else ()

    def _wanted(self, piece: Piece) -> npt.NDArray[np.bool_]:
        """Which tokens of a piece are to be learned."""
        if self.layout.loss_on == "assistant":
            return self.conversations.said[piece.offset : piece.offset + piece.length].astype(np.bool_)
        wanted = np.ones(piece.length, np.bool_)
        wanted[0] = self.layout.packing == "concat"
        return wanted

    def _mark_starts(self, piece: Piece, starts: npt.NDArray[np.bool_]) -> None:
        """Marks where conversations begin in a piece."""
        if self.layout.packing == "concat":
            documents = self.file.document_of(np.arange(piece.offset, piece.offset + piece.length))
            starts[1:] = np.diff(documents) != 0
            if piece.offset > 0:
                starts[0] = documents[0] != self.file.document_of([piece.offset - 1])[0]
                return
        starts[0] = True


def _packed(rows: ConversationRows) -> tuple[int, Callable[[int], Iterable[Piece]]]:
    packing = open_packing(rows.file, rows.layout.sequence_length)
    return packing.num_rows, best_fit_pieces(rows.file, packing, rows.layout.seed)


def _strung(rows: ConversationRows) -> tuple[int, Callable[[int], Iterable[Piece]]]:
    file, length = rows.file, rows.layout.sequence_length
    if file.num_tokens <= length:
        raise InputError(
            f"the conversations of {file.name} are {file.num_tokens:,} tokens, too few for a row of {length:,} and "
            'the token after it: lower model.sequence_length, add conversations, or set data.packing to "best_fit".'
        )
    order = SampleOrder(file.num_tokens, length, rows.layout.seed, shuffle=True)

    def pieces(number: int) -> Iterator[Piece]:
        offset = int(order.offsets(number, 1)[0]) % file.num_tokens
        first = min(length + 1, file.num_tokens - offset)
        yield Piece(offset, first)
        if first <= length:  # the tokens of the file are a ring
            yield Piece(0, length + 1 - first)

    return order.samples_per_epoch, pieces
