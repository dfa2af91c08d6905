"""`shuffle`: documents in random order, in bounded memory: distributed over files, and those over files again."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from megatron_iberis import _C
from megatron_iberis.text.ordering.sorting import BUCKETS, distribute, read_rows

# (tokens of each document, uint32 [n]; their ids one after the other, as bytes)
Piece = tuple[np.ndarray, bytes]

_IN_MEMORY = 32 << 20  # bytes of documents that are put in order at once
_ROWS = 1 << 12  # documents of a file that are distributed again at once
_ROW = np.dtype([("by", "<u8"), ("tokens", "<u4")])  # place, and size


def shuffle(pieces: Iterable[Piece], count: int, seed: int, folder: Path, token_bytes: int) -> Iterator[Piece]:
    """The `count` documents of `pieces`, number i at place permutation(i) (csrc/order/permutation.h).

    So the order depends on the seed and the number of documents alone, on every machine. Temporary files in `folder`
    have no name.
    """

    def placed() -> Iterator[tuple[np.ndarray, bytes]]:
        first = 0
        for tokens, ids in pieces:
            rows = np.empty(len(tokens), _ROW)
            rows["by"] = _C.permute_range(first, len(tokens), count, seed)
            rows["tokens"] = tokens
            first += len(tokens)
            yield rows, ids

    for rows, ids in _in_order(placed(), 0, count, folder, token_bytes):
        yield rows["tokens"], ids


def _in_order(
    pieces: Iterable[tuple[np.ndarray, bytes]], low: int, top: int, folder: Path, token_bytes: int
) -> Iterator[tuple[np.ndarray, bytes]]:
    """The documents of places `low` to below `top`, each there once, by place."""
    step = -(-(top - low) // BUCKETS)
    with contextlib.ExitStack() as stack:
        files: dict[int, tuple[IO[bytes], IO[bytes]]] = {}
        for rows, ids in pieces:
            buckets = (rows["by"] - np.uint64(low)) // np.uint64(step)
            for bucket, picked in distribute(np.arange(len(rows)), buckets):
                if bucket not in files:
                    files[bucket] = (
                        stack.enter_context(tempfile.TemporaryFile(dir=folder)),
                        stack.enter_context(tempfile.TemporaryFile(dir=folder)),
                    )
                files[bucket][0].write(rows[picked].tobytes())
                files[bucket][1].write(_pick(rows, ids, picked, token_bytes))
        for bucket, (rows_file, ids_file) in sorted(files.items()):
            first = low + bucket * step
            size = ids_file.tell()
            kept = _read(rows_file, ids_file, token_bytes)
            if step > 1 and size > _IN_MEMORY:
                yield from _in_order(kept, first, min(top, first + step), folder, token_bytes)
            else:
                parts = list(kept)
                rows, ids = np.concatenate([rows for rows, _ in parts]), b"".join([ids for _, ids in parts])
                del parts
                order = np.argsort(rows["by"])
                yield rows[order], _pick(rows, ids, order, token_bytes)
            rows_file.close()
            ids_file.close()


def _pick(rows: np.ndarray, ids: bytes, picked: np.ndarray, token_bytes: int) -> bytes:
    """The ids of the documents `picked`, in that order."""
    ends = np.cumsum(rows["tokens"], dtype=np.int64) * token_bytes
    starts = ends - rows["tokens"].astype(np.int64) * token_bytes
    view = memoryview(ids)
    return b"".join(
        [view[start:end] for start, end in zip(starts[picked].tolist(), ends[picked].tolist(), strict=True)]
    )


def _read(rows_file: IO[bytes], ids_file: IO[bytes], token_bytes: int) -> Iterator[tuple[np.ndarray, bytes]]:
    rows_file.seek(0)
    ids_file.seek(0)
    for rows in read_rows(rows_file, _ROW, _ROWS):
        yield rows, ids_file.read(int(rows["tokens"].sum(dtype=np.int64)) * token_bytes)
