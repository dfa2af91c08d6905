"""What a rank sees at a step: rows of a source (`rows.py`), shared out by a plan (`plan.py`), as torch tensors.

`micro_batches` walks through the steps, `prefetch` does so in a background thread. All ranks together see the same
samples whatever the data-parallel size and the micro-batch are.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from megatron_iberis.data.plan import BatchPlan
from megatron_iberis.data.rows import Rows, SampleSource

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Rows of text: `targets[b, t]` is the token after `tokens[b, t]`, or -1 where there is none to learn.

    int64 [B, T], contiguous, on the CPU until `to` brings them to a device.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    documents: torch.Tensor | None = None
    """The borders of the documents in the rows, strung together, as `cu_seqlens`: int32, from 0 to B * T, on the CPU.

    Every row begins a document. None where documents are not kept apart.
    """
    weights: torch.Tensor | None = None
    """What each target counts in the loss, fp32 [B, T]; None: 1 each."""
    more: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """What else an objective wants to be told of the rows, by name."""

    @classmethod
    def of(cls, rows: Rows) -> Batch:
        """The same rows as tensors; they share the rows' memory."""
        borders = rows.cu_seqlens
        documents = None if borders is None else torch.from_numpy(borders)
        weights = None if rows.weights is None else torch.from_numpy(rows.weights)
        more = {name: torch.from_numpy(values) for name, values in rows.more.items()}
        return cls(torch.from_numpy(rows.tokens), torch.from_numpy(rows.targets), documents, weights, more)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device, but for the documents' borders, which are read on the CPU.

        The host goes on while page-locked memory is copied to a GPU.
        """
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def page_locked(self) -> Batch:
        """The same where a GPU can fetch it by itself; as it is where there is no GPU."""
        return self._each(torch.Tensor.pin_memory) if torch.cuda.is_available() else self

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        weights = None if self.weights is None else change(self.weights)
        more = {name: change(values) for name, values in self.more.items()}
        return replace(self, tokens=change(self.tokens), targets=change(self.targets), weights=weights, more=more)


def micro_batches(source: SampleSource, plan: BatchPlan, first_step: int, last_step: int) -> Iterator[Batch]:
    """This rank's micro-batches of the steps first_step .. last_step - 1, `plan.accumulation` a step; page-locked."""
    for step in range(first_step, last_step):
        for index in range(plan.accumulation):
            yield Batch.of(source.read(plan.first_sample(step, index), plan.micro_batch)).page_locked()


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
