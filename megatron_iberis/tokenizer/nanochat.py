"""`import_nanochat`: nanochat's tokenizer.pkl -> a tokenizer of ours.

The file is a pickle of one `tiktoken.Encoding`, and a pickle can run any program. So it is not loaded as one: only
the instructions that build that object's state are accepted, and the one class that they may name becomes a stand-in
that keeps the state. nanochat's token_bytes.pt is not needed: `token_bytes` is counted from the merges.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer.tiktoken_model import TiktokenTokenizer

PICKLE_FILE = "tokenizer.pkl"
_LARGEST = 100_000_000  # bytes; a vocabulary of 200,000 takes 4 MB
_INSTRUCTIONS = frozenset(
    {
        *("PROTO", "FRAME", "MEMOIZE", "BINGET", "LONG_BINGET", "MARK", "STOP"),
        *("STACK_GLOBAL", "EMPTY_TUPLE", "NEWOBJ", "BUILD", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BININT", "BININT1", "BININT2"),
    }
)


class _State:
    """What stands in for `tiktoken.Encoding`."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_State]:
        if (module, name) != ("tiktoken.core", "Encoding"):
            raise pickle.UnpicklingError(f"it would load {module}.{name}")
        return _State


def import_nanochat(path: str | os.PathLike[str]) -> TiktokenTokenizer:
    """Reads nanochat's tokenizer.pkl, or the folder that holds it. InputError if it is anything else."""
    path = Path(path)
    path = path / PICKLE_FILE if path.is_dir() else path
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _LARGEST else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name nanochat's {PICKLE_FILE}.") from None
    state = _state(content, path)
    if not isinstance(state, dict) or not {"pat_str", "mergeable_ranks", "special_tokens"} <= set(state):
        raise _refused(path, "its state is not that of a trained tokenizer")
    pattern, merges, specials = state["pat_str"], state["mergeable_ranks"], state["special_tokens"]
    if not (isinstance(pattern, str) and _is_table(merges, bytes) and _is_table(specials, str)):
        raise _refused(path, "its tables are not those of a tokenizer")
    return TiktokenTokenizer(pattern, merges, specials)


def _state(content: bytes, path: Path) -> Any:
    """The state of the pickled object."""
    try:
        for instruction, _, _ in pickletools.genops(content):
            if instruction.name not in _INSTRUCTIONS:
                raise pickle.UnpicklingError(f"it holds the instruction {instruction.name}")
        found = _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # whatever a made-up file leads to
        raise _refused(path, str(error)) from None
    if type(found) is not _State:
        raise _refused(path, f"it holds a {type(found).__name__}")
    return getattr(found, "state", None)


def _is_table(value: Any, key: type) -> bool:
    return isinstance(value, dict) and all(type(k) is key and type(v) is int for k, v in value.items())


def _refused(path: Path, why: str) -> InputError:
    return InputError(f"{path} is not a tokenizer that nanochat wrote ({why}): nothing of it was run.")
