"""`sort_rows`: sorts more rows than memory holds, by distributing them over files and those over files again."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

BUCKETS = 64  # files open at a time, for every level
_IN_MEMORY = 32 << 20  # bytes of rows that are sorted at once


def sort_rows(
    chunks: Iterable[np.ndarray], dtype: np.dtype[Any], top: int, folder: Path, low: int = 0
) -> Iterator[np.ndarray]:
    """The rows of `chunks`, of a structured `dtype`, in the order of their field "by", in chunks again; stable.

    `by` is a uint64 from `low` to below `top`, best evenly spread. Temporary files in `folder` have no name: nothing
    is left of them when the process ends, however it does. Memory is bounded, whatever the number of rows.
    """
    step = -(-(top - low) // BUCKETS)
    with contextlib.ExitStack() as stack:
        files: dict[int, IO[bytes]] = {}
        for chunk in chunks:
            for bucket, rows in distribute(chunk, (chunk["by"] - np.uint64(low)) // np.uint64(step)):
                if bucket not in files:
                    files[bucket] = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                files[bucket].write(rows.tobytes())
        for bucket, file in sorted(files.items()):
            first = low + bucket * step
            size = file.tell()
            rows_of_file = _read(file, dtype)
            if step == 1:  # all are equal
                yield from rows_of_file
            elif size > _IN_MEMORY:
                yield from sort_rows(rows_of_file, dtype, min(top, first + step), folder, first)
            else:
                rows = np.concatenate(list(rows_of_file))
                yield rows[np.argsort(rows["by"], kind="stable")]
            file.close()


def distribute(rows: np.ndarray, buckets: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(bucket, its rows in their order) for each bucket that has any; `buckets` [n] are numbers below BUCKETS."""
    order = np.argsort(buckets, kind="stable")
    bounds = np.searchsorted(buckets[order], np.arange(BUCKETS + 1, dtype=np.uint64)).tolist()
    for bucket in range(BUCKETS):
        if bounds[bucket] < bounds[bucket + 1]:
            yield bucket, rows[order[bounds[bucket] : bounds[bucket + 1]]]


def read_rows(file: IO[bytes], dtype: np.dtype[Any], rows: int) -> Iterator[np.ndarray]:
    """The rows from where the file stands, `rows` at a time."""
    while block := file.read(rows * dtype.itemsize):
        yield np.frombuffer(block, dtype)


def _read(file: IO[bytes], dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    file.seek(0)
    return read_rows(file, dtype, max(1, _IN_MEMORY // 4 // dtype.itemsize))
