"""Token files: tokenised documents one after the other in PREFIX.bin, where each begins in PREFIX.idx.

* The format is Megatron's (layout: csrc/token_file/idx_format.h): megatron-core's `IndexedDataset` reads what
  `preprocess` and `merge` write, and what its builder writes is read here.
* Tokens are uint16 for vocabularies up to 65,536 ids, int32 above.
* Beside them lies PREFIX.json, the manifest: how the file was made, as whoever made it wants to record it.
* Nothing is loaded: both files are mapped into memory, so opening takes the same time for any size.
"""

from __future__ import annotations

import json
import mmap
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.errors import InputError

DTYPE_OF_CODE: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint16), 4: np.dtype(np.int32)}  # in a .idx
_REMAKE = "make it again with data_tools/preprocess.py, or copy it again."

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.int32]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The dtype in which the ids 0 .. vocab_size - 1 are stored; InputError for an impossible vocabulary."""
    if not 1 <= vocab_size <= 2**31:
        raise InputError(f"a vocabulary of {vocab_size:,} tokens cannot be stored: give 1 to 2,147,483,648.")
    return np.dtype(np.uint16) if vocab_size <= 2**16 else np.dtype(np.int32)


class TokenFile:
    """A token file open for reading: a sequence of documents, and a ring of tokens.

    `prefix` is the path without .bin and .idx, `name` what it is called by, usually the same. Raises InputError with
    the fix when a file is missing, empty, cut off, damaged or of a dtype that is not supported. Arrays come as
    read-only views of the file where they can.
    """

    def __init__(self, prefix: str | os.PathLike[str], name: str = "") -> None:
        self.prefix = os.fspath(prefix)
        self.name = name or self.prefix
        for suffix in (".idx", ".bin"):
            if not os.path.exists(self.prefix + suffix):
                raise InputError(
                    f"there is no {self.prefix}{suffix}: give the path of a token file without .bin and .idx "
                    "or make one with data_tools/preprocess.py."
                )
        self.index = _C.IndexReader(self.prefix + ".idx", fix=_REMAKE)
        self.dtype = DTYPE_OF_CODE[self.index.dtype_code]
        self.num_sequences = self.index.num_sequences
        self.num_documents = self.index.num_documents
        self.num_tokens = self.index.num_tokens
        self.lengths = self.index.lengths  # int32 [num_sequences], in tokens
        self.document_index = self.index.document_index  # int64 [num_documents + 1], in sequences
        self._tokens = self._map_tokens()

    def _map_tokens(self) -> Tokens:
        path = self.prefix + ".bin"
        promised = self.num_tokens * self.dtype.itemsize
        with _open(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if self.num_tokens == 0:
                raise InputError(
                    f"{self.prefix}.bin and .idx hold no tokens: leave them out, or make them again from text that "
                    "is not empty."
                )
            if size < promised:
                raise InputError(
                    f"{path} is cut off: {promised - size:,} of {promised:,} bytes are missing: {_REMAKE}"
                )
            if size > promised:
                raise InputError(
                    f"{path} holds {size - promised:,} bytes more than {self.prefix}.idx tells of: "
                    f"the two do not belong together: {_REMAKE}"
                )
            return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), self.dtype)

    def __len__(self) -> int:
        """Number of sequences."""
        return self.num_sequences

    def __getitem__(self, i: int) -> Tokens:
        """Tokens of sequence i, [lengths[i]]; IndexError when there is none."""
        first, length = self.index.sequence(i + self.num_sequences if i < 0 else i)
        return self._tokens[first : first + length]

    def tokens(self, start: int, count: int) -> Tokens:
        """The tokens from `start` on, [count]; after the last token of the file comes the first."""
        if count < 0:
            raise ValueError(f"{count} tokens cannot be read: give 0 or more.")
        start %= self.num_tokens
        if start + count <= self.num_tokens:
            return self._tokens[start : start + count]
        return self._tokens[np.arange(start, start + count) % self.num_tokens]

    def document(self, d: int) -> Tokens:
        """Tokens of document d, all its sequences."""
        first, end = self.document_index[d : d + 2].tolist()
        if first == end:
            return self._tokens[:0]
        start, (last, length) = self.index.sequence(first)[0], self.index.sequence(end - 1)
        return self._tokens[start : last + length]

    def document_of(self, offsets: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The document that the token at each offset of the ring belongs to, in the shape of `offsets`."""
        ring = np.asarray(offsets, np.int64) % self.num_tokens
        return self.index.documents_of(ring.reshape(-1)).reshape(ring.shape)

    def verify(self) -> None:
        """Reads the whole index; InputError naming the first sequence or document that is wrong."""
        self.index.verify()

    @cached_property
    def manifest(self) -> dict[str, Any] | None:
        """What PREFIX.json says, or None when there is no such file."""
        path = Path(self.prefix + ".json")
        try:
            manifest = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as JSON ({error}): {_REMAKE}") from error
        if not isinstance(manifest, dict):
            raise InputError(f"{path} is not a JSON object: {_REMAKE}")
        return manifest


def is_empty(prefix: str) -> bool:
    """Whether a token file is there that holds no token, and says so. TokenFile refuses such a file."""
    paths = [Path(f"{prefix}.{kind}") for kind in ("bin", "idx")]
    if not all(path.exists() for path in paths) or paths[0].stat().st_size:
        return False
    return _C.IndexReader(paths[1], fix=_REMAKE).num_tokens == 0


def _open(path: str) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot open {path} ({error.strerror}): check its name and rights.") from error
