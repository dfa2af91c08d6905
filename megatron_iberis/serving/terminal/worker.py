"""An answer made on a thread of its own, so that Ctrl-C is obeyed at once, whatever the model is at.

* All answers are made on the same thread: torch keeps its pool of threads for each thread that calls it.
* Ctrl-C never raises in the middle of the model's work. It ends the waiting; the thread closes the answer after the
  step that it is at, and the next answer begins after that.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import FrameType

from megatron_iberis.inference.pieces import Generator, Piece
from megatron_iberis.serving.terminal.session import Request

_Queue = SimpleQueue[Piece | BaseException | None]


class Stopped(Exception):  # noqa: N818
    """Ctrl-C was pressed while an answer was made."""


@dataclass
class _Flag:
    up: bool = False


class Worker:
    """Makes answers; to be used from the main thread, which gets the signals."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._thread = ThreadPoolExecutor(1, "answers")

    @contextmanager
    def answer(self, request: Request) -> Iterator[Iterator[Piece]]:
        """The answer as it comes. Asking for more raises `Stopped` once Ctrl-C was pressed, and whatever went wrong.

        Within the block Ctrl-C does nothing else, however often it is pressed. An answer that is not over then is
        given up.
        """
        queue: _Queue = SimpleQueue()
        stopped = _Flag()

        # It may come in the middle of itself: nothing here may wait for a lock, as an Event would.
        def stop(signal_number: int, frame: FrameType | None) -> None:
            stopped.up = True
            queue.put(Stopped())

        before = signal.signal(signal.SIGINT, stop)
        try:
            self._thread.submit(self._make, request, queue, stopped)
            yield _until_the_end(queue)
        finally:
            stopped.up = True
            signal.signal(signal.SIGINT, before)

    def _make(self, request: Request, queue: _Queue, stopped: _Flag) -> None:
        try:
            with closing(request.pieces(self._generator)) as pieces:
                for piece in pieces:
                    if stopped.up:
                        break
                    queue.put(piece)
            queue.put(None)
        except BaseException as error:  # it is the one who waits for the answer who has to know
            queue.put(error)


def _until_the_end(queue: _Queue) -> Iterator[Piece]:
    while (found := queue.get()) is not None:
        if isinstance(found, BaseException):
            raise found
        yield found
