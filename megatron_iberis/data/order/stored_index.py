"""Arrays worked out from a token file's index, kept in a file: for what cannot be worked out on the fly.

* It lies beside the token file, or in the user's cache folder where that one cannot be written to. Its name holds a
  hash of the .idx and of all that decides the arrays: another text, or another setting, is another file.
* Of several processes of a node one makes it and the others wait. It is written under a temporary name, synced and
  renamed, so under its name there is a whole file or none; it can be deleted at any time.
* The format is safetensors'; the arrays are mapped into memory, not loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import atomic_file
from megatron_iberis.storage.hashing import hash_file
from megatron_iberis.storage.locks import lock

Arrays = dict[str, npt.NDArray[Any]]

_DTYPES = {"I64": "<i8", "I32": "<i4", "U32": "<u4"}
_HEADER_LIMIT = 1 << 20


def stored_index(file: TokenFile, name: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays that `make` gives, from the file in which they are kept, or made if this is the first time.

    name: what decides the arrays beside the index, as a part of a file name. Integers of 32 or 64 bits. Raises
    InputError when the arrays can be written to neither folder, and what `make` raises.
    """
    name = f"{Path(file.prefix).name}.{name}-{_hash(file, name)}.index"
    refusals = []
    for folder in (Path(file.prefix).parent, cache_folder()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Of two that make the same file either may win: on a file system without locks only work is lost.
            with contextlib.closing(lock(folder, wait=True)):
                return _read(folder / name) or _write(folder / name, make)
        except OSError as error:
            refusals.append(f"{folder} ({error.strerror})")
    raise InputError(
        f"an index of {file.prefix} can be written to neither {' nor '.join(refusals)}: free space, or set "
        "XDG_CACHE_HOME to a folder that can be written to."
    )


def _hash(file: TokenFile, name: str) -> str:
    return hash_file(file.prefix + ".idx", hashlib.sha256(name.encode()))[:16]


def cache_folder() -> Path:
    """The user's cache folder; where there is no home (a container whose user has no name), the temporary folder."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        folder = Path(tempfile.gettempdir(), f"cache-{os.getuid()}")
    return folder / "megatron_iberis"


def _read(path: Path) -> Arrays | None:
    """The arrays in a file; None when there is none or it is not whole."""
    try:
        with open(path, "rb") as stream:
            begin = 8 + int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(begin - 8)) if begin < _HEADER_LIMIT else {}
        if begin + max(described["data_offsets"][1] for described in header.values()) != path.stat().st_size:
            return None
        return {
            name: np.asarray(
                np.memmap(path, _DTYPES[each["dtype"]], "r", begin + each["data_offsets"][0], tuple(each["shape"]))
            )
            for name, each in header.items()
        }
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _write(path: Path, make: Callable[[], Arrays]) -> Arrays:
    with atomic_file(path) as stream:  # before the work, as the folder may not be writable
        arrays = make()
        header = _header(arrays)
        stream.write(len(header).to_bytes(8, "little") + header)
        for array in arrays.values():
            stream.write(np.ascontiguousarray(array).data)
    return arrays


def _header(arrays: Arrays) -> bytes:
    codes, described, end = {dtype: code for code, dtype in _DTYPES.items()}, {}, 0
    for name, array in arrays.items():
        assert array.size, name  # nothing that is empty can be mapped
        begin, end = end, end + array.nbytes
        dtype = codes[array.dtype.newbyteorder("<").str]
        described[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (begin, end)}
    header = json.dumps(described).encode()
    return header + b" " * (-len(header) % 8)
