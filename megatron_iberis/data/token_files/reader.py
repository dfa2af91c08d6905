"""Token files: tokenised documents one after the other in PREFIX.bin, where each begins in PREFIX.idx.

* The format is Megatron's (layout: csrc/token_file/idx_format.h): megatron-core's `IndexedDataset` reads what is
  written here, and what its builder writes is read here.
* Tokens are uint16 for vocabularies up to 65,536 ids, int32 above.
* Beside them lies PREFIX.json, the manifest: how the file was made, as whoever made it wants to record it.
* Nothing is loaded: both files are mapped into memory, so opening takes the same time for any size.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from megatron_iberis import _C
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import json_line, rename_together, sync_stream
from megatron_iberis.storage.refusals import explain

_CODE_OF_DTYPE: dict[np.dtype[Any], int] = {np.dtype(np.uint16): 8, np.dtype(np.int32): 4}
_DTYPE_OF_CODE = {code: dtype for dtype, code in _CODE_OF_DTYPE.items()}
_REMAKE = "make it again with data_tools/preprocess.py, or copy it again."

Lengths = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.int32]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The dtype in which the ids 0 .. vocab_size - 1 are stored; InputError for an impossible vocabulary."""
    if not 1 <= vocab_size <= 2**31:
        raise InputError(f"a vocabulary of {vocab_size:,} tokens cannot be stored: give 1 to 2,147,483,648.")
    return np.dtype(np.uint16) if vocab_size <= 2**16 else np.dtype(np.int32)


class TokenFile:
    """A token file open for reading: a sequence of documents, and a ring of tokens.

    `prefix` is the path without .bin and .idx. Raises InputError with the fix when a file is missing, empty, cut
    off, damaged or of a dtype that is not supported. Arrays come as read-only views of the file where they can.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = os.fspath(prefix)
        for suffix in (".idx", ".bin"):
            if not os.path.exists(self.prefix + suffix):
                raise InputError(
                    f"there is no {self.prefix}{suffix}: give the path of a token file without .bin and .idx "
                    "or make one with data_tools/preprocess.py."
                )
        self.index = _C.IndexReader(self.prefix + ".idx")
        self.dtype = _DTYPE_OF_CODE[self.index.dtype_code]
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
                    f"{self.prefix}.bin and .idx hold no tokens: make them again from text that is not empty."
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


def _open(path: str) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot open {path} ({error.strerror}): check its name and rights.") from error


class TokenFileWriter:
    """Writes a token file, document by document, in constant memory.

    Everything goes to temporary names in the same folder (`PREFIX.bin.*.tmp` and so on); finalize() syncs them to
    the disk and renames them, the .idx last, so under the final names there is a whole token file or none. As a
    context manager it finalizes at the end of the block, or removes the temporary files when the block raises.
    (Only `kill -9` leaves them behind; they can be deleted.)

    Raises InputError with the fix for ids outside the vocabulary and when the disk is full or not writable.
    """

    def __init__(self, prefix: str | os.PathLike[str], vocab_size: int) -> None:
        self.prefix = os.fspath(prefix)
        self.vocab_size = vocab_size
        self.dtype = token_dtype(vocab_size)
        unique = f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
        self._temporary = {suffix: self.prefix + suffix + unique for suffix in (".bin", ".json", ".idx")}
        self._cleanup = contextlib.ExitStack()  # what abort() has to undo
        self._closed = False
        self._bytes = 42  # of .bin and .idx so far: an empty index, to which each sequence and document add 20
        with self._writing():
            Path(self.prefix).parent.mkdir(parents=True, exist_ok=True)
            for path in self._temporary.values():
                self._cleanup.callback(Path(path).unlink, missing_ok=True)
            self._bin = open(self._temporary[".bin"], "xb", buffering=1 << 20)  # noqa: SIM115 (abort closes it)
            self._cleanup.callback(_close_quietly, self._bin)
            self._index = _C.IndexWriter(self._temporary[".idx"], _CODE_OF_DTYPE[self.dtype])
            self._cleanup.callback(self._index.abort)

    def add_document(self, tokens: npt.ArrayLike, sequence_lengths: npt.ArrayLike | None = None) -> None:
        """Adds one document of `tokens` [n]: one sequence, or sequences of these lengths, which sum up to n."""
        ids = self._checked_ids(tokens)
        lengths = _checked_lengths([len(ids)] if sequence_lengths is None else sequence_lengths, len(ids))
        self._add(self._index.add_document, ids, lengths)

    def add_documents(self, tokens: npt.ArrayLike, lengths: npt.ArrayLike) -> None:
        """Adds len(lengths) documents of one sequence each, one after the other in `tokens` [sum(lengths)]."""
        ids = self._checked_ids(tokens)
        self._add(self._index.add, ids, _checked_lengths(lengths, len(ids)))

    def finalize(self, manifest: dict[str, Any] | None = None) -> None:
        """Puts the file under its final names, with `manifest` as PREFIX.json; replaces an older token file."""
        with self._writing():
            if self._index.num_tokens == 0:
                self.abort()
                raise InputError(f"there are no tokens to write to {self.prefix}.bin: give input that holds text.")
            sync_stream(self._bin)
            self._bin.close()
            self._index.finish()
            if manifest is not None:
                with open(self._temporary[".json"], "xb") as stream:
                    stream.write(json_line(manifest, indent=2))
                    sync_stream(stream)
            moves = [(Path(temporary), Path(self.prefix + suffix)) for suffix, temporary in self._temporary.items()]
            # The old index goes first: no reader may ever pair it with the new tokens.
            rename_together(moves, [Path(self.prefix + suffix) for suffix in (".idx", ".json")])
        self._cleanup.pop_all()
        self._closed = True

    def abort(self) -> None:
        """Removes the temporary files; nothing after finalize()."""
        self._closed = True
        self._cleanup.close()

    def __enter__(self) -> TokenFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._closed:
                self.finalize()
        finally:
            self.abort()

    def _add(self, add_to_index: Callable[[Lengths], None], ids: Tokens, lengths: Lengths) -> None:
        self._bytes += ids.nbytes + 20 * len(lengths)
        with self._writing():
            add_to_index(lengths)  # first, as it refuses lengths that do not fit
            self._bin.write(ids.data)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Around all that writes: refuses a writer that is closed, cleans up after a disk that refuses."""
        if self._closed:
            raise ValueError(f"the writer of {self.prefix}.bin is closed: start a new one.")
        try:
            yield
        except OSError as error:
            self.abort()
            raise InputError(
                explain(
                    error,
                    f"{self.prefix}.bin",
                    f"at least {self._bytes:,} bytes are needed there: free space or choose another folder",
                )
            ) from error

    def _checked_ids(self, tokens: npt.ArrayLike) -> Tokens:
        ids = _integers(tokens, "tokens")
        if ids.size:
            low, high = int(ids.min()), int(ids.max())
            if low < 0 or high >= self.vocab_size:
                raise InputError(
                    f"token {low if low < 0 else high} is outside the vocabulary of {self.vocab_size:,}: "
                    "give the vocabulary size of the tokenizer that made the tokens."
                )
        return np.ascontiguousarray(ids, self.dtype)


def _integers(values: npt.ArrayLike, name: str) -> npt.NDArray[np.integer]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InputError(
            f"{name} must be a one-dimensional array of integers, not {array.dtype} {list(array.shape)}."
        )
    return array


def _checked_lengths(lengths: npt.ArrayLike, tokens: int) -> Lengths:
    array = _integers(lengths, "lengths").astype(np.int64)
    if (total := int(array.sum())) != tokens:
        raise ValueError(f"the lengths sum up to {total:,} where there are {tokens:,} tokens: they must agree.")
    return array


def _close_quietly(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a full disk refuses what is still in the buffer
        stream.close()
