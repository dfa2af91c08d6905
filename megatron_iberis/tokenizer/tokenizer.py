"""`Tokenizer`: a SentencePiece model that gives back every text exactly.

* A folder holds it: `tokenizer.model` (SentencePiece) and `manifest.json` (kind, sizes, specials, training, sha256).
* `decode(encode(s)) == s` for every str that UTF-8 can hold: what has no piece is spelled in byte pieces.
* A literal U+2581 goes through the byte pieces too, as SentencePiece uses that character for the space.
* The chat specials are control symbols: they are placed by id, no text can spell them.
* Decoding joins the pieces' bytes itself; SentencePiece only encodes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import sentencepiece

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
MODEL_FILE = "tokenizer.model"
MANIFEST_FILE = "manifest.json"

_SPACE = "\u2581"  # SentencePiece writes a space like this inside a piece
# No piece of ours has a space after anything but a space, nor anything but a newline after a newline (training.py
# sees to it). So these units can be encoded one by one with the very ids of the whole text, and the short ones are
# remembered: words come again. Long ones, Japanese lines, go many at a time. The bounds keep memory flat on a line of
# any length; beyond them a merge may differ, never the text.
_UNITS = re.compile(r"(?:[^ \n]{25,65536}\n*){1,64}| *[^ \n]{1,65536}\n*| {1,65536}\n*|\n+")
_REMEMBERED = 24  # characters
_CACHE_SIZE = 1 << 18  # units, about 60 MB


class Tokenizer:
    """Encodes and decodes text. Made by `train` or read with `Tokenizer.load(folder)`.

    Attributes: `vocab_size`, `bos_id`, `specials` (spelling -> id), `fingerprint` (sha256 of the model file, hex) and
    `manifest` (what manifest.json says).
    """

    def __init__(self, model: bytes, manifest: dict[str, Any]) -> None:
        self._model = model
        self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self.manifest = manifest
        self.vocab_size: int = self._sp.vocab_size()
        self.specials = {name: self._sp.piece_to_id(name) for name in SPECIALS}
        self.bos_id = self.specials["<|bos|>"]
        self._bytes = [self._bytes_of(i) for i in range(self.vocab_size)]
        byte_ids = [self._sp.piece_to_id(f"<0x{b:02X}>") for b in _SPACE.encode()]
        self._space_character = np.array(byte_ids, dtype=np.int32).tobytes()
        self._cache: dict[str, bytes] = {}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Tokenizer:
        """Reads a tokenizer folder. ValueError if it is not one, or if its model is not the manifest's."""
        folder = Path(folder)
        try:
            model = (folder / MODEL_FILE).read_bytes()
            manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
            sha256 = manifest["sha256"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(
                f"{folder} is not a tokenizer folder (there is no {error.filename}): "
                "make one with data_tools/train_tokenizer.py."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{folder / MANIFEST_FILE} is damaged: copy the tokenizer folder again or train it again."
            ) from None
        if hashlib.sha256(model).hexdigest() != sha256:
            raise ValueError(
                f"{folder / MODEL_FILE} is not the file that {MANIFEST_FILE} describes (another sha256): "
                "copy the tokenizer folder again or train it again."
            )
        return cls(model, manifest)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the folder whole or not at all; replaces a tokenizer that stands there, and nothing else."""
        folder = Path(folder)
        check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
        replaced = folder.parent / f".{folder.name}.replaced-{os.getpid()}"
        try:
            partial.mkdir()
            _write(partial / MODEL_FILE, self._model)
            text = json.dumps(self.manifest, ensure_ascii=False, indent=2) + "\n"
            _write(partial / MANIFEST_FILE, text.encode())
            if folder.exists():
                folder.rename(replaced)
            partial.rename(folder)
        except OSError as error:
            raise ValueError(f"the tokenizer could not be written to {folder}: {error.strerror}.") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without any special. ValueError on a lone surrogate, which is no text."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as an int32 array (read-only): the fast way for whole documents."""
        parts = [self._encode_plain(part) for part in text.split(_SPACE)]
        return np.frombuffer(self._space_character.join(parts), dtype=np.int32)

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
        counts[[self._sp.unk_id(), *self.specials.values()]] = 0
        return counts

    def _bytes_of(self, i: int) -> bytes:
        piece: str = self._sp.id_to_piece(i)
        if self._sp.is_byte(i):
            return bytes([int(piece[3:5], 16)])  # <0x0A>
        if self._sp.is_control(i):
            return piece.encode()
        if self._sp.is_unknown(i):
            return "\ufffd".encode()  # never encoded, but a model may draw it
        return piece.replace(_SPACE, " ").encode()

    def _encode_plain(self, text: str) -> bytes:
        """The ids of a text without U+2581, as int32 bytes."""
        units = _UNITS.findall(text)
        parts = list(map(self._cache.get, units))
        for i, unit in enumerate(units):
            if parts[i] is None:
                parts[i] = ids = self._encode_unit(unit)
                if len(unit) <= _REMEMBERED:
                    if len(self._cache) >= _CACHE_SIZE:
                        self._cache.clear()
                    self._cache[unit] = ids
        return b"".join(cast(list[bytes], parts))

    def _encode_unit(self, unit: str) -> bytes:
        try:
            # One call a unit: SentencePiece's batches start a thread pool each time, which costs more.
            ids: bytes = self._sp.encode(unit, return_type="numpy").tobytes()
        except RuntimeError:
            surrogate = re.search("[\ud800-\udfff]", unit)
            if surrogate is None:
                raise
            raise ValueError(
                f"the text holds a lone surrogate (U+{ord(surrogate[0]):04X}), which UTF-8 cannot write: remove it."
            ) from None
        return ids


def check_replaceable(folder: Path) -> None:
    """ValueError if `save(folder)` would have to remove something that is not a tokenizer."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the tokenizer.")
    others = sorted({p.name for p in folder.iterdir()} - {MODEL_FILE, MANIFEST_FILE})
    if others:
        raise ValueError(f"{folder} holds other things than a tokenizer (such as {others[0]}): name another folder.")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
