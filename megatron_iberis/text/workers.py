"""`map_ordered`: work on a stream in several processes, results in the order of the items, in bounded memory.

* A worker that dies (out of memory, killed) ends the work with an error; nothing waits for it for ever.
* A worker whose parent dies ends itself, as its pipe does; Ctrl-C is the parent's to handle.
* concurrent.futures' pool is not used: a Ctrl-C while it starts its processes can leave it waiting for ever.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # results that wait for an earlier one, for each worker


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
            while not team.idle or number - due > _AHEAD * workers:
                done.update(team.collect())
                while due in done:
                    yield done.pop(due)
                    due += 1
            team.give(number, item)
        while team.busy:
            done.update(team.collect())
        for number in sorted(done):
            yield done[number]
    finally:
        team.end()


class _Team:
    """Worker processes, each with one item at most: so neither end of a pipe ever waits for the other to read."""

    def __init__(self) -> None:
        self.idle: list[Connection] = []
        self.busy: dict[Connection, int] = {}  # the number of the item
        self._processes: list[BaseProcess] = []

    def start(self, make: Callable[[], Callable[[Any], Any]], workers: int) -> None:
        # Spawned, not forked: a fork of a process with threads (pyarrow's) may hang.
        context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # else the first start() would do it, and unblock SIGINT
        with _interrupted_later():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self.idle.append(ours)
        for worker in self.idle:  # not as an argument: start() would wait until the new process has read it
            _send(worker, make)

    def give(self, number: int, item: Any) -> None:
        """Sends an item to an idle worker."""
        worker = self.idle.pop()
        self.busy[worker] = number
        _send(worker, item)

    def collect(self) -> dict[int, Any]:
        """Waits for a worker; the results that there are, by number."""
        results = {}
        for worker in wait(list(self.busy)):
            assert isinstance(worker, Connection)
            try:
                result, error, trace = worker.recv()
            except (EOFError, OSError):
                raise _died() from None
            if error is not None:
                raise error from RuntimeError(trace)
            results[self.busy.pop(worker)] = result
            self.idle.append(worker)
        return results

    def end(self) -> None:
        """Workers hold nothing that could be lost, so they need no time to end."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for worker in (*self.idle, *self.busy):
            worker.close()


def _send(worker: Connection, value: Any) -> None:
    try:
        worker.send(value)
    except ConnectionError:
        raise _died() from None


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, perhaps in the middle of a message
        make, work = pipe.recv(), None
        while True:
            item = pipe.recv()
            result, error, trace = None, None, ""
            try:
                work = work or make()
                result = work(item)
            except Exception as raised:
                error, trace = raised, traceback.format_exc()
            pipe.send((result, error, trace))


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
