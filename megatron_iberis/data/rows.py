"""Random access to numbered samples, as rows of numpy arrays: no torch, so that a mistake in the data shows at once.

A source turns sample numbers into `Rows`, and says where a sample lies in which token file. `ConcatSource` reads a
token file as running text, `PackedSource` as pieces of documents (packed whole, or in Megatron's order), `Mixture`
several sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from megatron_iberis.data.order.best_fit import PackedRows
from megatron_iberis.data.order.blending import Blend
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.order.megatron import MegatronOrder
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """`targets[b, t]` is the token after `tokens[b, t]`, or -1 where there is none to learn; both int64 [B, T]."""

    tokens: Ids
    targets: Ids
    starts: npt.NDArray[np.bool_] | None = None
    """Where a document begins, bool [B, T]; a row always begins one. None where documents are not kept apart."""
    weights: npt.NDArray[np.float32] | None = None
    """What each target counts in the loss, fp32 [B, T]; None: 1 each."""
    more: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """What else an objective wants to be told of the rows, by name."""

    @property
    def cu_seqlens(self) -> npt.NDArray[np.int32] | None:
        """The borders of the documents in the rows, one after the other: int32, from 0 to B * T."""
        if self.starts is None:
            return None
        return np.append(np.flatnonzero(self.starts), self.starts.size).astype(np.int32)


@dataclass(frozen=True)
class Place:
    """A run of tokens of one file: the first one's offset, and the documents of the first and the last one."""

    file: str
    token: int
    document: int
    last_document: int


class Located(Protocol):
    """Numbered samples of which one can be told where they lie."""

    def locate(self, sample: int) -> list[Place]:
        """Where the tokens of a sample lie; its last target is one of them."""


class SampleSource(Located, Protocol):
    """Random access to numbered samples."""

    def read(self, first: int, count: int) -> Rows:
        """The samples first .. first + count - 1, one a row."""


class FileSource(SampleSource, Protocol):
    """The samples of one token file. samples_per_epoch: so many show each token about once.

    remark: what a user should know of these samples, as the rest of a sentence about the file; often nothing.
    """

    file: TokenFile
    remark: str

    @property
    def samples_per_epoch(self) -> int: ...


class ConcatSource:
    """The samples of one token file, in the given order. document_mask: also where documents begin.

    Raises InputError when the order was made for another number of tokens, and from `read` when the file holds an
    id outside the model's vocabulary (which on a GPU would otherwise end the process).
    """

    remark = ""

    def __init__(self, file: TokenFile, order: SampleOrder, vocab_size: int, document_mask: bool = False) -> None:
        if order.num_tokens != file.num_tokens:
            raise ValueError(
                f"the sample order is for {order.num_tokens:,} tokens and {file.prefix}.bin holds "
                f"{file.num_tokens:,}: make the order from the file that is read."
            )
        self.file = file
        self.order = order
        self.vocab_size = vocab_size
        self.document_mask = document_mask

    @property
    def samples_per_epoch(self) -> int:
        return self.order.samples_per_epoch

    def read(self, first: int, count: int) -> Rows:
        """The samples first .. first + count - 1, one a row."""
        offsets = self.order.offsets(first, count)
        rows = np.empty((count, self.order.sequence_length + 1), np.int64)
        for row, offset in zip(rows, offsets.tolist(), strict=True):
            row[:] = self.file.tokens(offset, rows.shape[1])
        _check_ids(rows, self.file, self.vocab_size)
        starts = self._starts(offsets) if self.document_mask else None
        return Rows(rows[:, :-1].copy(), rows[:, 1:].copy(), starts)

    def locate(self, sample: int) -> list[Place]:
        """Where the sample's T + 1 tokens lie; after the last token of the file comes the first."""
        start = int(self.order.offsets(sample, 1)[0]) % self.file.num_tokens
        return [place_of(self.file, start, self.order.sequence_length + 1)]

    def _starts(self, offsets: Ids) -> npt.NDArray[np.bool_]:
        """Of the tokens from each offset on, bool [B, T]."""
        ring = offsets[:, None] + np.arange(self.order.sequence_length)
        documents = self.file.document_of(ring)
        starts = np.diff(documents, axis=1, prepend=-1) != 0
        starts |= ring % self.file.num_tokens == 0  # a file of one document follows upon itself
        return starts


@dataclass(frozen=True)
class Piece:
    """`length` tokens of a file from `offset` on, all of one document."""

    offset: int
    length: int


class PackedSource:
    """Samples that are put together from pieces of the documents of one token file.

    sample_tokens: T + 1. pieces: of a sample's number, the pieces, T + 1 tokens at most. What a sample lacks is
    padding: token 0 and target -1. document_mask: also where pieces begin.
    """

    def __init__(
        self,
        file: TokenFile,
        sample_tokens: int,
        pieces: Callable[[int], Iterable[Piece]],
        samples_per_epoch: int,
        vocab_size: int,
        document_mask: bool = False,
        remark: str = "",
    ) -> None:
        self.file = file
        self.remark = remark
        self.sample_tokens = sample_tokens
        self.pieces = pieces
        self.samples_per_epoch = samples_per_epoch
        self.vocab_size = vocab_size
        self.document_mask = document_mask

    def read(self, first: int, count: int) -> Rows:
        """The samples first .. first + count - 1, one a row."""
        tokens = np.zeros((count, self.sample_tokens), np.int64)
        starts = np.zeros(tokens.shape, np.bool_)
        starts[:, 0] = True
        filled = np.zeros((count, 1), np.int64)
        for row in range(count):
            end = 0
            for piece in self.pieces(first + row):
                begin, end = end, end + piece.length
                tokens[row, begin:end] = self.file.tokens(piece.offset, piece.length)
                starts[row, begin : begin + 1] = True
            filled[row] = end
        _check_ids(tokens, self.file, self.vocab_size)
        targets = np.where(np.arange(1, self.sample_tokens) < filled, tokens[:, 1:], -1)
        return Rows(tokens[:, :-1].copy(), targets, starts[:, :-1].copy() if self.document_mask else None)

    def locate(self, sample: int) -> list[Place]:
        """Where the sample's pieces lie, in their order."""
        return [place_of(self.file, piece.offset, piece.length) for piece in self.pieces(sample) if piece.length]


def best_fit_source(
    file: TokenFile, rows: PackedRows, seed: int, vocab_size: int, document_mask: bool = False
) -> PackedSource:
    """The packed rows of one token file, each once an epoch, in an order that differs from epoch to epoch."""
    pieces = best_fit_pieces(file, rows, seed)
    remark = (
        f"packed into {rows.num_rows:,} rows, {rows.cropped_share:.1%} of its tokens cropped, "
        f"{rows.padded_share:.1%} of the rows padding"
    )
    return PackedSource(file, rows.row_tokens, pieces, rows.num_rows, vocab_size, document_mask, remark)


def best_fit_pieces(file: TokenFile, rows: PackedRows, seed: int) -> Callable[[int], Iterator[Piece]]:
    """Of a sample's number, the documents of its row: each row once an epoch, in an order of the epoch's own."""
    order = SampleOrder(max(2, rows.num_rows), 1, seed, shuffle=True)  # a row is a "token" of it

    def pieces(sample: int) -> Iterator[Piece]:
        left = rows.row_tokens
        for document in rows.documents_of(int(order.offsets(sample, 1)[0]) % rows.num_rows):
            offset, length = _span(file, document)
            yield Piece(offset, min(length, left))
            left -= min(length, left)

    return pieces


def megatron_source(
    file: TokenFile, order: MegatronOrder, vocab_size: int, document_mask: bool = False
) -> PackedSource:
    """The samples of one token file in Megatron's own order."""
    length = order.sequence_length

    def pieces(sample: int) -> Iterator[Piece]:
        for sequence, tokens in order.pieces(sample):
            offset, size = file.index.sequence(sequence)
            start, end, _ = tokens.indices(size)
            yield Piece(offset + start, end - start)

    return PackedSource(file, length + 1, pieces, file.num_tokens // length, vocab_size, document_mask)


class Mixture:
    """The samples of several token files, in the order of a blend of as many parts."""

    def __init__(self, sources: Sequence[FileSource], blend: Blend) -> None:
        self.sources = sources
        self.blend = blend

    def __str__(self) -> str:
        """The files in a line: how much they hold, and what there is to remark."""
        files = [source.file for source in self.sources]
        tokens, documents = sum(f.num_tokens for f in files), sum(f.num_documents for f in files)
        several = f" of {len(files)} files" if len(files) > 1 else ""
        remarks = [f"; {source.file.prefix} {source.remark}" for source in self.sources if source.remark]
        return f"{tokens:,} tokens in {documents:,} documents{several}" + "".join(remarks)

    def read(self, first: int, count: int) -> Rows:
        """The samples first .. first + count - 1 (one or more), one a row."""
        files, indices = self.blend.locate(first, count)
        by_file = np.argsort(files, kind="stable")
        borders = np.flatnonzero(np.diff(files[by_file], prepend=-1))
        parts = []
        for rows in np.split(by_file, borders[1:]):  # of one file, whose samples follow each other
            parts.append(self.sources[files[rows[0]]].read(int(indices[rows[0]]), len(rows)))
        if len(parts) == 1:
            return parts[0]
        place = np.argsort(by_file)
        starts = [rows.starts for rows in parts if rows.starts is not None]
        return Rows(
            np.concatenate([rows.tokens for rows in parts])[place],
            np.concatenate([rows.targets for rows in parts])[place],
            np.concatenate(starts)[place] if starts else None,
            _weights(parts, place),
        )

    def locate(self, sample: int) -> list[Place]:
        """Where the sample lies in the file that it comes from."""
        files, indices = self.blend.locate(sample, 1)
        return self.sources[files[0]].locate(int(indices[0]))


def _weights(parts: Sequence[Rows], place: Ids) -> npt.NDArray[np.float32] | None:
    """Of several rows in the order `place`: 1 where a part has no weights, None where no part has any."""
    if all(rows.weights is None for rows in parts):
        return None
    weights = [np.ones(rows.tokens.shape, np.float32) if rows.weights is None else rows.weights for rows in parts]
    return np.concatenate(weights)[place]


def place_of(file: TokenFile, start: int, length: int) -> Place:
    """Where the `length` tokens from `start` on lie."""
    document, last = file.document_of([start, start + length - 1]).tolist()
    return Place(file.prefix, start, document, last)


def _span(file: TokenFile, document: int) -> tuple[int, int]:
    """Where a document begins in its file, and its length, in tokens."""
    first, end = file.document_index[document : document + 2].tolist()
    if first == end:
        return 0, 0
    start, (last, length) = file.index.sequence(first)[0], file.index.sequence(end - 1)
    return start, last + length - start


def _check_ids(ids: Ids, file: TokenFile, vocab_size: int) -> None:
    if ids.size == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"{file.prefix}.bin holds token {low if low < 0 else high} and the model knows {vocab_size:,}: train "
            "with the tokenizer that the token file was made with."
        )
