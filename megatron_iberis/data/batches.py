"""What a rank sees at a step.

* A `BatchPlan` says which sample numbers: a function of the step alone, so the position in the data is the step
  number, and all ranks together see the same samples whatever the data-parallel size and the micro-batch are.
* A `SampleSource` turns sample numbers into a `Batch`. `TokenBatches` reads a token file as running text,
  `PackedBatches` as rows of whole documents, `Mixture` several sources.
* `micro_batches` walks through the steps, `prefetch` does so in a background thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from megatron_iberis.data.blending import Blend
from megatron_iberis.data.packing import PackedRows
from megatron_iberis.data.samples import SampleOrder
from megatron_iberis.data.token_file import TokenFile

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Rows of text: `targets[b, t]` is the token after `tokens[b, t]`, or -1 where there is none to learn.

    int64 [B, T], contiguous, on the CPU.
    """

    tokens: torch.Tensor
    targets: torch.Tensor


class SampleSource(Protocol):
    """Random access to numbered samples."""

    def read(self, first: int, count: int) -> Batch:
        """The samples first .. first + count - 1, one a row."""


class TokenBatches:
    """The samples of one token file, in the given order.

    Raises ValueError when the order was made for another number of tokens, and from `read` when the file holds an
    id outside the model's vocabulary (which on a GPU would otherwise end the process).
    """

    def __init__(self, file: TokenFile, order: SampleOrder, vocab_size: int) -> None:
        if order.num_tokens != file.num_tokens:
            raise ValueError(
                f"the sample order is for {order.num_tokens:,} tokens and {file.prefix}.bin holds "
                f"{file.num_tokens:,}: make the order from the file that is read."
            )
        self.file = file
        self.order = order
        self.vocab_size = vocab_size

    def read(self, first: int, count: int) -> Batch:
        """The samples first .. first + count - 1, one a row."""
        offsets = self.order.offsets(first, count)
        rows = np.empty((count, self.order.sequence_length + 1), np.int64)
        for row, offset in zip(rows, offsets.tolist(), strict=True):
            row[:] = self.file.tokens(offset, rows.shape[1])
        _check_ids(rows, self.file, self.vocab_size)
        both = torch.from_numpy(rows)
        return Batch(tokens=both[:, :-1].contiguous(), targets=both[:, 1:].contiguous())


class PackedBatches:
    """The packed rows of one token file, each once an epoch, in an order that differs from epoch to epoch."""

    def __init__(self, file: TokenFile, rows: PackedRows, seed: int, vocab_size: int) -> None:
        self.file = file
        self.rows = rows
        self.order = SampleOrder(max(2, rows.num_rows), 1, seed, shuffle=True)  # a row is a "token" of it
        self.vocab_size = vocab_size

    def read(self, first: int, count: int) -> Batch:
        """The samples first .. first + count - 1, one a row; padding is token 0 and target -1."""
        tokens = np.zeros((count, self.rows.row_tokens), np.int64)
        numbers = self.order.offsets(first, count) % self.rows.num_rows
        filled = [self._fill(row, number) for row, number in zip(tokens, numbers.tolist(), strict=True)]
        _check_ids(tokens, self.file, self.vocab_size)
        both = torch.from_numpy(tokens)
        targets = both[:, 1:].clone()
        targets[torch.arange(1, both.shape[1]) >= torch.tensor(filled).unsqueeze(1)] = -1
        return Batch(tokens=both[:, :-1].contiguous(), targets=targets)

    def _fill(self, row: npt.NDArray[np.int64], number: int) -> int:
        """Copies the documents of a packed row into `row`; returns how many tokens they are."""
        end = 0
        for document in self.rows.documents_of(number):
            tokens = self.file.document(document)[: len(row) - end]
            row[end : end + len(tokens)] = tokens
            end += len(tokens)
        return end


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
        return Batch(torch.cat([b.tokens for b in parts])[place], torch.cat([b.targets for b in parts])[place])


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
