"""`map_ordered`: work on a stream in several processes, results in the order of the items, in bounded memory.

* A worker that dies (out of memory, killed) ends the work with an error; nothing waits for it for ever.
* A worker whose parent dies ends itself; Ctrl-C is the parent's to handle.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_work: Callable[[Any], Any]  # of a worker process


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
    # Spawned, not forked: a fork of a process with threads (pyarrow's) may hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (make,))
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(_submit(pool, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise ChildProcessError(
            "a worker process died (killed, or out of memory): give the same command with --resume, "
            "and fewer --workers if memory is short."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, item: Any) -> Future[Any]:
    # A worker that is being started here must not see Ctrl-C before it can ignore it: it inherits what is blocked.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_run, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _start(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = make()


def _run(item: Any) -> Any:
    return _work(item)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
