"""Which documents are duplicates: those that share a key (similarity.py) with one before them. The first one stays.

All on disk: the keys of all documents are sorted, documents with equal keys stand together, and what is found is
sorted again by document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megatron_iberis.storage.joined import open_joined
from megatron_iberis.text.ordering.sorting import read_rows, sort_rows

CHUNK = 1 << 16  # documents held at a time
_KEY = np.dtype([("by", "<u8"), ("document", "<u8")])
PAIR = np.dtype([("by", "<u8"), ("first", "<u8")])  # a duplicate, and the first document that it shares a key with


def find_duplicates(paths: Sequence[Path], dtype: np.dtype[Any], folder: Path) -> Iterator[np.ndarray]:
    """The duplicates in files of documents (encoding.document_dtype), one list: PAIRs in order, each once."""
    count = sum(path.stat().st_size for path in paths) // dtype.itemsize
    groups = sort_rows(_keys(paths, dtype), _KEY, 2**64, folder)
    pairs = sort_rows(_later_of_group(groups), PAIR, max(1, count), folder)
    return _once(pairs)


def documents_of(paths: Sequence[Path], dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    """The files' documents, CHUNK at a time."""
    with open_joined(paths) as file:
        yield from read_rows(file, dtype, CHUNK)


def _keys(paths: Sequence[Path], dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    first = 0
    for chunk in documents_of(paths, dtype):
        keys = chunk["keys"]
        rows = np.empty(keys.size, _KEY)
        rows["by"] = keys.reshape(-1)
        rows["document"] = np.repeat(np.arange(first, first + len(chunk), dtype=np.uint64), keys.shape[1])
        yield rows
        first += len(chunk)


def _later_of_group(groups: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """PAIR for every row but the first of those with the same key, which stand together in order of document."""
    key, document = None, np.uint64(0)  # of the group that the rows before ended with
    for rows in groups:
        by = rows["by"]
        begins = np.concatenate([[key is None or by[0] != key], by[1:] != by[:-1]])
        # The document that began the group of each row; -1 where it was in the rows before.
        place = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), -1))
        firsts = np.where(place < 0, document, rows["document"][place])
        pairs = np.empty(len(rows), PAIR)
        pairs["by"], pairs["first"] = rows["document"], firsts
        yield pairs[pairs["by"] != pairs["first"]]  # two keys of one document may be equal, too
        key, document = by[-1], firsts[-1]


def _once(pairs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """One PAIR a document, that with the earliest first. A document's pairs are never in two chunks."""
    for chunk in pairs:
        if len(chunk):
            ordered = chunk[np.lexsort((chunk["first"], chunk["by"]))]
            begins = np.concatenate([[True], ordered["by"][1:] != ordered["by"][:-1]])
            yield ordered[begins]
