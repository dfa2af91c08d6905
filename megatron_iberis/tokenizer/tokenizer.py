"""`Tokenizer`: what every tokenizer offers, whatever made it.

* A folder holds one: a model file (one for each kind) and `manifest.json` (kind, sizes, specials, training, sha256).
* `decode(encode(s)) == s` for every str that UTF-8 can hold.
* The chat specials are placed by id; no text can spell them.
* Kinds: "bpe" and "unigram" (sentencepiece_model.py), "tiktoken" (tiktoken_model.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import json_line, write_together
from megatron_iberis.storage.refusals import check_writable, explain

# nanochat's nine, in its order; the first opens every document.
SPECIALS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
MANIFEST_FILE = "manifest.json"


class Tokenizer(ABC):
    """Encodes and decodes text. Made by `train` or `import_nanochat`, or read with `Tokenizer.load(folder)`.

    Attributes: `vocab_size`, `bos_id`, `specials` (spelling -> id), `fingerprint` (sha256 of the model file, hex) and
    `manifest` (what manifest.json says).
    """

    kinds: ClassVar[tuple[str, ...]]
    model_file: ClassVar[str]
    _classes: ClassVar[list[type[Tokenizer]]] = []

    def __init_subclass__(cls) -> None:
        Tokenizer._classes.append(cls)

    def __init__(
        self, model: bytes, manifest: dict[str, Any], specials: dict[str, int], spelled: Sequence[bytes]
    ) -> None:
        """`spelled`: the bytes that each id stands for."""
        self._model = model
        self._bytes = spelled
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self.manifest = manifest
        self.vocab_size = len(spelled)
        self.specials = specials
        self.bos_id = specials[SPECIALS[0]]

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process: its model file travels, nothing that was made of it."""
        return type(self).from_model, (self._model, self.manifest)

    @property
    def model(self) -> bytes:
        """The content of the model file."""
        return self._model

    @classmethod
    @abstractmethod
    def from_model(cls, model: bytes, manifest: dict[str, Any]) -> Tokenizer:
        """The tokenizer of a model file's content."""

    @abstractmethod
    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as an int32 array: the fast way for whole documents."""

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Tokenizer:
        """Reads a tokenizer folder. InputError if it is not one, or if its model is not the manifest's."""
        folder = Path(folder)
        try:
            manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
            sha256, kind = manifest["sha256"], manifest["kind"]
            of_kind = next((c for c in Tokenizer._classes if kind in c.kinds), None)
            if of_kind is None:
                raise InputError
            model = (folder / of_kind.model_file).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(
                f"{folder} is not a tokenizer folder (there is no {error.filename}): "
                "make one with data_tools/train_tokenizer.py."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{folder / MANIFEST_FILE} is damaged: copy the tokenizer folder again or train it again."
            ) from None
        if hashlib.sha256(model).hexdigest() != sha256:
            raise InputError(
                f"{folder / of_kind.model_file} is not the file that {MANIFEST_FILE} describes (another sha256): "
                "copy the tokenizer folder again or train it again."
            )
        return of_kind.from_model(model, manifest)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the folder whole or not at all; replaces a tokenizer that stands there, and nothing else."""
        check_output(folder)
        real = Path(os.path.realpath(folder))  # a link to a folder that is not there yet is one to make
        others = {c.model_file for c in Tokenizer._classes} - {self.model_file}
        made = not real.exists()
        try:
            real.mkdir(parents=True, exist_ok=True)
            contents = {self.model_file: self._model, MANIFEST_FILE: json_line(self.manifest, indent=2)}
            write_together(real, contents, remove=others)
        except OSError as error:
            if made:
                shutil.rmtree(real, ignore_errors=True)
            raise InputError(explain(error, folder)) from error

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without any special. InputError on a lone surrogate, which is no text."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; specials are spelled out, bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """`decode` before the bytes are read as UTF-8: what a stream that may end inside a character needs."""
        table, size = self._bytes, self.vocab_size
        parts = []
        for i in ids:
            if not 0 <= i < size:
                raise ValueError(f"id {i} is outside the tokenizer's vocabulary of {size}.")
            parts.append(table[i])
        return b"".join(parts)

    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes of text that each id stands for, int32 [vocab_size]: byte pieces 1, specials 0."""
        counts = np.array([len(b) for b in self._bytes], dtype=np.int32)
        counts[list(self.specials.values())] = 0
        return counts


def check_output(folder: str | os.PathLike[str]) -> None:
    """InputError if `save(folder)` cannot write there, or would mix a tokenizer with other things."""
    check_writable(folder, folder=True)
    folder = Path(folder)
    if not folder.exists():
        return
    own = {MANIFEST_FILE, *(c.model_file for c in Tokenizer._classes)}
    others = sorted({p.name for p in folder.iterdir()} - own)
    if others:
        raise InputError(f"{folder} holds other things than a tokenizer (such as {others[0]}): name another folder.")


def lone_surrogate(text: str) -> InputError:
    """The error to raise when `text` cannot be written in UTF-8."""
    found = re.search("[\ud800-\udfff]", text)
    assert found is not None
    return InputError(
        f"the text holds a lone surrogate (U+{ord(found[0]):04X}), which UTF-8 cannot write: remove it."
    )
