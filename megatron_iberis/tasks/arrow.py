"""The rows of a .parquet file in any order: small ones in memory, a large one as a mapped copy in Arrow's form.

A row of .parquet can only be had by unpacking the thousands around it; of Arrow's form it is had at once, and the
pages of the mapped file are shared by all processes of a machine. The copy, NAME.parquet.arrow, is made once, beside;
where nothing may be written, the rows are kept in memory.
"""

from __future__ import annotations

import bisect
import errno
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import atomic_file
from megatron_iberis.storage.locks import lock
from megatron_iberis.storage.refusals import explain

IN_MEMORY = 64 << 20
"""Bytes of unpacked rows up to which no copy is made."""


def open_parquet(path: Path) -> Sequence[Any]:
    """The rows, each a dict. InputError if the file is damaged, or there is no room for the copy."""
    import pyarrow
    from pyarrow import ipc, parquet

    copy = path.with_name(path.name + ".arrow")
    try:
        with parquet.ParquetFile(path) as file:
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) <= IN_MEMORY or not _copied(file, path, copy):
                return _TableRows(file.read())
        return _TableRows(ipc.open_file(pyarrow.memory_map(str(copy))).read_all())
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): download it again.") from None


class _TableRows(Sequence[Any]):
    def __init__(self, table: Any) -> None:
        self._batches = table.to_batches()
        self._ends = list(accumulate(len(batch) for batch in self._batches))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        batch = bisect.bisect_right(self._ends, index)
        start = self._ends[batch - 1] if batch else 0
        return self._batches[batch].slice(index - start, 1).to_pylist()[0]


def _copied(file: Any, path: Path, copy: Path) -> bool:
    """Whether the copy is there, or could be made. One process of a machine makes it; the others wait."""
    from pyarrow import ipc

    held = None
    try:
        if not _is_current(copy, path):
            held = lock(path.parent, wait=True)
            if not _is_current(copy, path):
                with atomic_file(copy) as stream, ipc.new_file(stream, file.schema_arrow) as writer:
                    for batch in file.iter_batches(1000):
                        writer.write_batch(batch)
        return True
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return False
        raise InputError(explain(error, copy, "free space, or move the set to another disk")) from None
    finally:
        if held:
            held.close()


def _is_current(copy: Path, of: Path) -> bool:
    return copy.exists() and copy.stat().st_mtime_ns >= of.stat().st_mtime_ns
