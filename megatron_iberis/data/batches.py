"""What a rank sees at a step.

* A `BatchPlan` says which sample numbers: a function of the step alone, so the position in the data is the step
  number, and all ranks together see the same samples whatever the data-parallel size and the micro-batch are.
* A `SampleSource` turns sample numbers into a `Batch`. `ConcatSource` reads a token file as running text,
  `PackedSource` as whole documents packed into rows or in Megatron's order, `Mixture` several sources.
* `micro_batches` walks through the steps, `prefetch` does so in a background thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from megatron_iberis.data.order.best_fit import PackedRows
from megatron_iberis.data.order.blending import Blend
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.order.megatron import MegatronOrder
from megatron_iberis.data.token_files.reader import TokenFile, Tokens

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Rows of text: `targets[b, t]` is the token after `tokens[b, t]`, or -1 where there is none to learn.

    int64 [B, T], contiguous, on the CPU.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor | None = None
    """Each token's place in its document, as far as that lies in the row; None where documents are not kept apart."""
    weights: torch.Tensor | None = None
    """What each token counts in the loss, fp32 [B, T]; None: 1 each."""


class SampleSource(Protocol):
    """Random access to numbered samples."""

    def read(self, first: int, count: int) -> Batch:
        """The samples first .. first + count - 1, one a row."""


class ConcatSource:
    """The samples of one token file, in the given order. document_mask: also each token's place in its document.

    Raises ValueError when the order was made for another number of tokens, and from `read` when the file holds an
    id outside the model's vocabulary (which on a GPU would otherwise end the process).
    """

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

    def read(self, first: int, count: int) -> Batch:
        """The samples first .. first + count - 1, one a row."""
        offsets = self.order.offsets(first, count)
        rows = np.empty((count, self.order.sequence_length + 1), np.int64)
        for row, offset in zip(rows, offsets.tolist(), strict=True):
            row[:] = self.file.tokens(offset, rows.shape[1])
        _check_ids(rows, self.file, self.vocab_size)
        both = torch.from_numpy(rows)
        positions = self._positions(offsets) if self.document_mask else None
        return Batch(both[:, :-1].contiguous(), both[:, 1:].contiguous(), positions)

    def _positions(self, offsets: npt.NDArray[np.int64]) -> torch.Tensor:
        """Of the tokens from each offset on, int64 [B, T]."""
        ring = offsets[:, None] + np.arange(self.order.sequence_length)
        documents = self.file.document_of(ring)
        begins = np.diff(documents, axis=1, prepend=-1) != 0
        begins |= ring % self.file.num_tokens == 0  # a file of one document follows upon itself
        return _places(begins)


def _places(begins: npt.NDArray[np.bool_]) -> torch.Tensor:
    """How far each place of a row is from the last one that `begins` marks at or before it, int64 [B, T]."""
    places = np.arange(begins.shape[1])
    return torch.from_numpy(places - np.maximum.accumulate(np.where(begins, places, 0), axis=1))


class PackedSource:
    """Samples that are put together from pieces of the documents of one token file.

    sample_tokens: T + 1. pieces: of a sample's number, the pieces, T + 1 tokens at most. What a sample lacks is
    padding: token 0 and target -1. document_mask: also each token's place in its piece.
    """

    def __init__(
        self,
        file: TokenFile,
        sample_tokens: int,
        pieces: Callable[[int], Iterable[Tokens]],
        vocab_size: int,
        document_mask: bool = False,
    ) -> None:
        self.file = file
        self.sample_tokens = sample_tokens
        self.pieces = pieces
        self.vocab_size = vocab_size
        self.document_mask = document_mask

    def read(self, first: int, count: int) -> Batch:
        """The samples first .. first + count - 1, one a row."""
        tokens = np.zeros((count, self.sample_tokens), np.int64)
        begins = np.zeros(tokens.shape, np.bool_)
        filled = np.zeros((count, 1), np.int64)
        for row in range(count):
            for piece in self.pieces(first + row):
                begin = filled[row, 0]
                end = begin + len(piece)
                tokens[row, begin:end] = piece
                begins[row, begin : begin + 1] = True
                filled[row] = end
        _check_ids(tokens, self.file, self.vocab_size)
        both = torch.from_numpy(tokens)
        targets = both[:, 1:].clone()
        targets[torch.arange(1, self.sample_tokens) >= torch.from_numpy(filled)] = -1
        positions = _places(begins[:, :-1]) if self.document_mask else None
        return Batch(both[:, :-1].contiguous(), targets, positions)


def packed_batches(
    file: TokenFile, rows: PackedRows, seed: int, vocab_size: int, document_mask: bool = False
) -> PackedSource:
    """The packed rows of one token file, each once an epoch, in an order that differs from epoch to epoch."""
    order = SampleOrder(max(2, rows.num_rows), 1, seed, shuffle=True)  # a row is a "token" of it

    def pieces(sample: int) -> Iterator[Tokens]:
        left = rows.row_tokens
        for document in rows.documents_of(int(order.offsets(sample, 1)[0]) % rows.num_rows):
            yield (piece := file.document(document)[:left])
            left -= len(piece)

    return PackedSource(file, rows.row_tokens, pieces, vocab_size, document_mask)


def megatron_batches(
    file: TokenFile, order: MegatronOrder, vocab_size: int, document_mask: bool = False
) -> PackedSource:
    """The samples of one token file in Megatron's own order."""

    def pieces(sample: int) -> Iterator[Tokens]:
        return (file[document][tokens] for document, tokens in order.pieces(sample))

    return PackedSource(file, order.sequence_length + 1, pieces, vocab_size, document_mask)


def _check_ids(ids: npt.NDArray[np.int64], file: TokenFile, vocab_size: int) -> None:
    if ids.size == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"{file.prefix}.bin holds token {low if low < 0 else high} and the model knows {vocab_size:,}: train "
            "with the tokenizer that the token file was made with."
        )


class Mixture:
    """The samples of several sources, in the order of a blend of as many parts."""

    def __init__(self, sources: Sequence[SampleSource], blend: Blend) -> None:
        self.sources = sources
        self.blend = blend

    def read(self, first: int, count: int) -> Batch:
        """The samples first .. first + count - 1 (one or more), one a row."""
        files, indices = self.blend.locate(first, count)
        by_file = np.argsort(files, kind="stable")
        starts = np.flatnonzero(np.diff(files[by_file], prepend=-1))
        parts = []
        for rows in np.split(by_file, starts[1:]):  # of one file, whose samples follow each other
            parts.append(self.sources[files[rows[0]]].read(int(indices[rows[0]]), len(rows)))
        if len(parts) == 1:
            return parts[0]
        place = torch.from_numpy(np.argsort(by_file))
        positions = [b.positions for b in parts if b.positions is not None]
        weighted = any(b.weights is not None for b in parts)
        weights = [torch.ones(b.targets.shape) if b.weights is None else b.weights for b in parts if weighted]
        return Batch(
            torch.cat([b.tokens for b in parts])[place],
            torch.cat([b.targets for b in parts])[place],
            torch.cat(positions)[place] if positions else None,
            torch.cat(weights)[place] if weights else None,
        )


@dataclass(frozen=True)
class BatchPlan:
    """How the samples of a step are shared out among ranks and micro-batches.

    Step s uses the samples s * G .. (s + 1) * G - 1, where G is `global_batch` (rows, not tokens). Micro-batch a
    of data-parallel rank r of R takes `micro_batch` of them (b), from s * G + (a * R + r) * b on.
    """

    global_batch: int
    micro_batch: int
    rank: int
    ranks: int

    def __post_init__(self) -> None:
        if min(self.global_batch, self.micro_batch, self.ranks) < 1 or not 0 <= self.rank < self.ranks:
            raise ValueError(f"{self} is not a plan: give sizes of 1 or more and a rank below the number of ranks.")
        if self.global_batch % (self.micro_batch * self.ranks):
            raise ValueError(
                f"a batch of {self.global_batch} sequences cannot be split over {self.ranks} data-parallel ranks of "
                f"{self.micro_batch} sequences at a time: make it a multiple of {self.micro_batch * self.ranks}."
            )

    @property
    def accumulation(self) -> int:
        """Micro-batches that each rank goes through in a step."""
        return self.global_batch // (self.micro_batch * self.ranks)

    def first_sample(self, step: int, index: int) -> int:
        """The first of the `micro_batch` sample numbers of this rank's micro-batch `index` in a step."""
        return step * self.global_batch + (index * self.ranks + self.rank) * self.micro_batch


def micro_batches(source: SampleSource, plan: BatchPlan, first_step: int, last_step: int) -> Iterator[Batch]:
    """This rank's micro-batches of the steps first_step .. last_step - 1, `plan.accumulation` a step."""
    for step in range(first_step, last_step):
        for index in range(plan.accumulation):
            yield source.read(plan.first_sample(step, index), plan.micro_batch)


@dataclass(frozen=True)
class _End:
    """The last thing in the queue of `prefetch`: nothing more comes, because of the error where there is one."""

    error: BaseException | None = None


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items, made ahead of time by a background thread, at most `depth` of them waiting.

    What `items` raises is raised here, in its place. The thread ends with the items or when this iterator is closed.
    """
    waiting: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    closed = threading.Event()

    def fill() -> None:
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    return
                waiting.put(item)
            waiting.put(_End())
        except BaseException as error:  # whatever it is, it belongs to the consumer
            waiting.put(_End(error))

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            room.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        room.release()
        thread.join()
