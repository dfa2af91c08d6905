"""Whole documents packed into rows (best fit, csrc/best_fit.h), and the file in which the packing is kept.

* `open_packing` finds the packing of a token file or makes it: beside the token file, or in the user's cache folder
  where that one cannot be written to. The name holds a hash of the .idx and of all that decides the rows, so another
  text, or another row length, is another file. Of several processes on a node one makes it and the others wait.
* Little-endian: magic "IBROWS1\\0", int64 row_tokens, rows, documents, cropped, padded, 16 bytes of zeros; int64
  starts [rows + 1]; uint32 documents [documents]. Row r is the documents [starts[r], starts[r + 1]).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.data.token_file import TokenFile

_MAGIC = b"IBROWS1\0"
_HEADER = 64


@dataclass(frozen=True)
class PackedRows:
    """Rows of `row_tokens` tokens, and which documents lie in each, one after the other from its beginning.

    The last document of a row may be cut where it is longer than a row; what a row lacks is padding.
    """

    row_tokens: int
    cropped: int
    """Tokens of long documents that are in no row."""
    padded: int
    """Tokens that the rows lack."""
    starts: npt.NDArray[np.int64]
    documents: npt.NDArray[np.uint32]

    @property
    def num_rows(self) -> int:
        return len(self.starts) - 1

    @property
    def cropped_share(self) -> float:
        """Of the tokens of the file, those that are in no row."""
        return self.cropped / (self.num_rows * self.row_tokens - self.padded + self.cropped)

    @property
    def padded_share(self) -> float:
        """Of the places in the rows, those that are empty."""
        return self.padded / (self.num_rows * self.row_tokens)

    def documents_of(self, row: int) -> list[int]:
        """The numbers of the documents in a row."""
        documents: list[int] = self.documents[self.starts[row] : self.starts[row + 1]].tolist()
        return documents


def open_packing(file: TokenFile, sequence_length: int) -> PackedRows:
    """The documents of `file` in rows of sequence_length + 1 tokens, made if this is the first time.

    Raises ValueError when the index is damaged, or when the packing can be written to neither folder.
    """
    row_tokens = sequence_length + 1
    name = f"{Path(file.prefix).name}.best_fit-{row_tokens}-{_hash(file, row_tokens)}.rows"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "megatron_iberis"
    refusals = []
    for folder in (Path(file.prefix).parent, cache):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _only_one(folder):
                return _read(folder / name) or _make(folder / name, file, row_tokens)
        except OSError as error:
            refusals.append(f"{folder} ({error.strerror})")
    raise ValueError(
        f"the packed rows of {file.prefix} can be written to neither {' nor '.join(refusals)}: free space, or set "
        "XDG_CACHE_HOME to a folder that can be written to."
    )


def _hash(file: TokenFile, row_tokens: int) -> str:
    digest = hashlib.sha256(_MAGIC + row_tokens.to_bytes(8, "little"))
    with open(file.prefix + ".idx", "rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Waits until no other process of this node is in here for the folder.

    It saves work and memory only: two that make the same file would rename the same bytes to the same name. So a
    file system without locks is no error.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock, also after kill -9


def _read(path: Path) -> PackedRows | None:
    """The packing in a file; None when there is none or it is not whole."""
    with contextlib.suppress(FileNotFoundError):
        size = path.stat().st_size
        with open(path, "rb") as stream:
            header = stream.read(_HEADER)
        if len(header) == _HEADER and header.startswith(_MAGIC):
            row_tokens, rows, documents, cropped, padded = np.frombuffer(header, "<i8", 5, len(_MAGIC)).tolist()
            if size == _HEADER + 8 * (rows + 1) + 4 * documents:
                starts = np.memmap(path, "<i8", "r", _HEADER, (rows + 1,))
                numbers = np.memmap(path, "<u4", "r", _HEADER + 8 * (rows + 1), (documents,))
                return PackedRows(row_tokens, cropped, padded, np.asarray(starts), np.asarray(numbers))
    return None


def _make(path: Path, file: TokenFile, row_tokens: int) -> PackedRows:
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with open(temporary, "xb") as stream:  # before the work, as the folder may not be writable
        try:
            starts, documents, cropped, padded = _C.best_fit(file.index, row_tokens)
            header = np.array([row_tokens, len(starts) - 1, len(documents), cropped, padded, 0, 0], "<i8")
            for part in (_MAGIC, header.data, starts.data, documents.data):
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return PackedRows(row_tokens, cropped, padded, starts, documents)
