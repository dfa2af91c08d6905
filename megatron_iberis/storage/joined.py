"""`JoinedFiles`: files that lie one behind the other, read as one."""

from __future__ import annotations

import bisect
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path


class JoinedFiles(io.RawIOBase):
    """A stream of bytes over all of `paths`; one of them is open at a time, however many there are."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._ends: list[int] = []
        for path in self._paths:
            self._ends.append(path.stat().st_size + (self._ends[-1] if self._ends else 0))
        self._file = -1  # number of the one that is open
        self._opened = contextlib.ExitStack()
        self._stream: io.FileIO
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """To `offset` bytes from the beginning, the only place that is counted from."""
        assert whence == io.SEEK_SET
        self._position = offset
        return offset

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number = bisect.bisect_right(self._ends, self._position)
        if number == len(self._ends):
            return 0
        if number != self._file:
            self._opened.close()
            self._stream = self._opened.enter_context(self._paths[number].open("rb", buffering=0))
            self._file = number
        begin = self._ends[number - 1] if number else 0
        self._stream.seek(self._position - begin)
        count = self._stream.readinto(buffer)
        self._position += count
        return count

    def close(self) -> None:
        self._opened.close()
        super().close()


def open_joined(paths: Sequence[Path]) -> io.BufferedReader:
    """All of `paths` as one buffered stream; the buffer is small, for single rows are read here and there, too."""
    return io.BufferedReader(JoinedFiles(paths))
