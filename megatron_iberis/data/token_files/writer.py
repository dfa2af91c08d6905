"""Writing the index of a token file; the .bin is nothing but the ids, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from megatron_iberis import _C
from megatron_iberis.data.token_files.reader import DTYPE_OF_CODE

_CODE_OF_DTYPE = {dtype: code for code, dtype in DTYPE_OF_CODE.items()}


@contextmanager
def index_writer(path: Path, dtype: np.dtype[Any]) -> Iterator[_C.IndexWriter]:
    """A writer of the .idx at `path`, for tokens of this dtype; memory does not grow with the documents.

    At the end of the block the file is complete and on the disk; it is removed if the block raises. OSError when the
    disk is full, InputError for a document that is too long.
    """
    writer = _C.IndexWriter(path, _CODE_OF_DTYPE[dtype])
    try:
        yield writer
        writer.finish()
    finally:
        writer.abort()  # nothing after finish()
