"""`map_ordered`: work on a stream in several processes, results in the order of the items, in bounded memory.

* A worker that dies (out of memory, killed) ends the work with an error; nothing waits for it for ever.
* A worker whose parent dies ends itself, as its pipe does; Ctrl-C is the parent's to handle.
* concurrent.futures' pool is not used: a Ctrl-C while it starts its processes can leave it waiting for ever.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any, TypeVar

from megatron_iberis.processes.mailbox import Mailbox

Item = TypeVar("Item")
Result = TypeVar("Result")

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_AHEAD = 4  # items after the one that is due, for each worker, at most


def map_ordered(
    make: Callable[[], Callable[[Item], Result]], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yields `work(item)` for each item, where `work = make()` is made once in every worker process.

    `make`, items and results must be picklable. With one worker everything happens in this process. An exception of
    `work` is raised here; ChildProcessError if a worker died.
    """
    if workers == 1:
        yield from map(make(), items)
        return
    team = _Team()
    done: dict[int, Result] = {}
    due = 0  # the number of the result to yield next
    try:
        team.start(make, workers)
        for number, item in enumerate(items):
            while team.is_full or number - due > _AHEAD * workers:
                done.update(team.collect())
                while due in done:
                    yield done.pop(due)
                    due += 1
            team.give(number, item)
        while team.is_busy:
            done.update(team.collect())
        for number in sorted(done):
            yield done[number]
    finally:
        team.end()


class _Worker:
    """A process and the way to it: values lie in mailboxes, the pipe only says in which, so no end waits to be read.

    It has two mailboxes, so that the next item is there when it has done one.
    """

    def __init__(self, context: SpawnContext) -> None:
        self.mailboxes = Mailbox(), Mailbox()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.mailboxes), daemon=True)
        self.process.start()
        theirs.close()
        self.free = [0, 1]  # mailboxes
        self.numbers: dict[int, int] = {}  # of the items in the others

    def send(self, value: Any) -> None:
        try:
            self.pipe.send(value)
        except ConnectionError:
            raise _died() from None

    def receive(self) -> tuple[int, Any]:
        """The number of an item, and its result."""
        try:
            mailbox, size = self.pipe.recv()
        except (EOFError, OSError):
            raise _died() from None
        result, error, trace = self.mailboxes[mailbox].get(size)
        if error is not None:
            raise error from RuntimeError(trace)
        self.free.append(mailbox)
        return self.numbers.pop(mailbox), result

    def end(self) -> None:
        self.process.join()
        self.pipe.close()
        for mailbox in self.mailboxes:
            mailbox.close()


class _Team:
    def __init__(self) -> None:
        self._workers: dict[Any, _Worker] = {}  # by their pipes

    @property
    def is_full(self) -> bool:
        return not any(worker.free for worker in self._workers.values())

    @property
    def is_busy(self) -> bool:
        return any(worker.numbers for worker in self._workers.values())

    def start(self, make: Callable[[], Callable[[Any], Any]], workers: int) -> None:
        # Spawned, not forked: a fork of a process with threads (pyarrow's) may hang.
        context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # else the first start() would do it, and unblock SIGINT
        with _interrupted_later(), _without_blas_threads():
            for _ in range(workers):
                worker = _Worker(context)
                self._workers[worker.pipe] = worker
        for worker in self._workers.values():  # not as an argument: start() would wait until it has been read
            worker.send(make)

    def give(self, number: int, item: Any) -> None:
        """Sends an item to the worker that has least to do."""
        worker = max(self._workers.values(), key=lambda worker: len(worker.free))
        mailbox = worker.free.pop()
        worker.numbers[mailbox] = number
        worker.send((mailbox, worker.mailboxes[mailbox].put(item)))

    def collect(self) -> dict[int, Any]:
        """Waits for a worker; the results that there are, by number."""
        return dict(self._workers[pipe].receive() for pipe in wait(list(self._workers)))

    def end(self) -> None:
        """Workers hold nothing that could be lost, so they need no time to end."""
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.end()


def _serve(pipe: Connection, mailboxes: Sequence[Mailbox]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, perhaps in the middle of a message
        make, work = pipe.recv(), None
        while True:
            mailbox, size = pipe.recv()
            result, error, trace = None, None, ""
            try:
                work = work or make()
                result = work(mailboxes[mailbox].get(size))
            except Exception as raised:
                error, trace = raised, traceback.format_exc()
            pipe.send((mailbox, mailboxes[mailbox].put((result, error, trace))))


def _died() -> ChildProcessError:
    return ChildProcessError(
        "a worker process died (killed, or out of memory): give the same command with --resume, "
        "and fewer --workers if memory is short."
    )


@contextlib.contextmanager
def _interrupted_later() -> Iterator[None]:
    """What is started inside never sees Ctrl-C; this process sees it, or SIGTERM, when all is started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    # Both are needed: the mask is what a new process inherits, but any other thread may still take the signal.
    handlers = [signal.signal(number, lambda got, _: came.append(got)) for number in numbers]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        for got in came[:1]:
            signal.raise_signal(got)


@contextlib.contextmanager
def _without_blas_threads() -> Iterator[None]:
    """What is started inside has no threads for matrices: numpy would make as many as there are cores, which spin."""
    before = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_BLAS_THREADS]
        if before is not None:
            os.environ[_BLAS_THREADS] = before
