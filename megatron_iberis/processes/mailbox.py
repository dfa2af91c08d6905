"""`Mailbox`: memory that two processes map, for one value at a time.

Through a pipe a value takes some 2 ns a byte of both sides' time and makes one wait for the other; encoding takes 20.
The memory has no name: nothing is left behind, however the processes end.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import tempfile
from multiprocessing import reduction
from typing import Any

_KEPT = 8 << 20  # bytes that it has while no value is larger; pages are used only where something was written


class Mailbox:
    """Can be given to a process that is being started. Whose turn it is to use it must be clear at any time."""

    def __init__(self, file: int | None = None) -> None:
        """`file`: descriptor of the memory of another process's mailbox."""
        self._file = _nameless_file(_KEPT) if file is None else file
        self._memory = mmap.mmap(self._file, 0)
        self._end = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherited, (reduction.DupFd(self._file),)

    def put(self, value: Any) -> int:
        """Lays a value in, over what was there; its bytes, for `get`."""
        self._map()
        self._end = 0
        pickle.dump(value, self, pickle.HIGHEST_PROTOCOL)
        if self._end <= _KEPT < len(self._memory):
            self._resize(_KEPT)
        return self._end

    def get(self, size: int) -> Any:
        self._map()
        with memoryview(self._memory) as whole, whole[:size] as part:
            return pickle.loads(part)

    def close(self) -> None:
        self._memory.close()
        os.close(self._file)

    def write(self, part: Any) -> None:
        """For pickle: the next bytes of the value."""
        part = memoryview(part).cast("B")
        start, self._end = self._end, self._end + len(part)
        if self._end > len(self._memory):
            self._resize(max(self._end, 2 * len(self._memory)))
        self._memory[start : self._end] = part

    def _resize(self, size: int) -> None:
        os.ftruncate(self._file, size)
        self._map()

    def _map(self) -> None:
        """Maps the memory as it is now: the other process may have made it larger, or smaller again."""
        if os.fstat(self._file).st_size != len(self._memory):
            self._memory.close()
            self._memory = mmap.mmap(self._file, 0)


def _nameless_file(size: int) -> int:
    if sys.platform == "linux":
        file = os.memfd_create("mailbox")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


def _inherited(file: Any) -> Mailbox:
    return Mailbox(file.detach())
