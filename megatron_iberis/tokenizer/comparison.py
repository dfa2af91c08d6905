"""How much text a token holds: our tokenizers beside others', by kind of text.

Others are read for this only: a SentencePiece model, Hugging Face's tokenizer.json, nanochat's tokenizer.pkl or an
encoding of tiktoken's by name. Those of other packages need the extra: pip install 'megatron_iberis[tokenizers]'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer.nanochat import PICKLE_FILE, import_nanochat
from megatron_iberis.tokenizer.tokenizer import MANIFEST_FILE, Tokenizer

HUGGING_FACE_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Contender:
    """A tokenizer to compare: its name, the size of its vocabulary and how many tokens it makes of a text."""

    name: str
    vocab_size: int
    count: Callable[[str], int]


@dataclass
class Fertility:
    """Text and the tokens that it became."""

    documents: int = 0
    bytes: int = 0  # in UTF-8
    characters: int = 0
    tokens: int = 0

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens if self.tokens else math.inf

    @property
    def characters_per_token(self) -> float:
        return self.characters / self.tokens if self.tokens else math.inf

    def add(self, other: Fertility) -> None:
        self.documents += other.documents
        self.bytes += other.bytes
        self.characters += other.characters
        self.tokens += other.tokens


def measure(contenders: list[Contender], texts: Iterable[str]) -> list[Fertility]:
    """What each contender makes of the same texts, which are read once."""
    found = [Fertility() for _ in contenders]
    for text in texts:
        size = len(text.encode())
        for contender, fertility in zip(contenders, found, strict=True):
            fertility.add(Fertility(1, size, len(text), contender.count(text)))
    return found


def own_contender(folder: str) -> Contender:
    """The tokenizer of one of our folders. InputError if it is none."""
    return _ours(folder, Tokenizer.load(folder))


def open_contender(name: str) -> Contender:
    """The tokenizer of a path, or tiktoken's encoding of that name. InputError if it is none that can be read."""
    path = Path(name)
    if (path / MANIFEST_FILE).exists():
        return own_contender(name)
    for file, open_file in ((HUGGING_FACE_FILE, _hugging_face), (PICKLE_FILE, _nanochat)):
        if (path / file).exists():
            return open_file(name, path / file)
    if not path.is_file():
        return _tiktoken(name)
    opener = {".model": _sentencepiece, ".json": _hugging_face, ".pkl": _nanochat}.get(path.suffix)
    if opener is None:
        raise InputError(
            f"{name} is not a tokenizer that can be read: give a tokenizer folder, a SentencePiece .model, Hugging "
            "Face's tokenizer.json, nanochat's tokenizer.pkl or a name of tiktoken's, such as cl100k_base."
        )
    return opener(name, path)


def _ours(name: str, tokenizer: Tokenizer) -> Contender:
    return Contender(name, tokenizer.vocab_size, lambda text: len(tokenizer.encode_array(text)))


def _nanochat(name: str, path: Path) -> Contender:
    return _ours(name, import_nanochat(path))


def _sentencepiece(name: str, path: Path) -> Contender:
    import sentencepiece

    try:
        sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise InputError(f"{path} is not a SentencePiece model ({error}): name another file.") from None
    return Contender(name, sp.vocab_size(), lambda text: len(sp.encode(text)))


def _hugging_face(name: str, path: Path) -> Contender:
    try:
        import tokenizers
    except ImportError:
        raise _missing("tokenizers", name) from None
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # its own class is Exception
        raise InputError(f"{path} is not a tokenizer of Hugging Face's ({error}): name another file.") from None

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return Contender(name, tokenizer.get_vocab_size(), count)


def _tiktoken(name: str) -> Contender:
    try:
        import tiktoken
    except ImportError:
        raise _missing("tiktoken", name) from None
    known = tiktoken.list_encoding_names()
    if name not in known:
        raise InputError(
            f"there is no file or folder {name}, nor an encoding of tiktoken's: those are {_list(known)}."
        )
    try:
        encoding = tiktoken.get_encoding(name)
    except OSError as error:  # requests' errors are
        raise InputError(
            f"tiktoken cannot fetch {name} ({type(error).__name__}): connect to the network once, or put its file "
            "into the folder that TIKTOKEN_CACHE_DIR names."
        ) from None
    return Contender(name, encoding.n_vocab, lambda text: len(encoding.encode_ordinary(text)))


def _missing(package: str, name: str) -> InputError:
    return InputError(f"to read {name} the package {package} is needed: pip install 'megatron_iberis[tokenizers]'.")


def _list(names: Any) -> str:
    return ", ".join(sorted(names))
