"""`train`: text -> a tokenizer folder. The same text and arguments give the same bytes; no network.

* SentencePiece with byte fallback and nothing normalised: every text survives (tokenizer.py).
* Pieces never cross a line's end and never hold more than two digits (nanochat's rule): boundary marks in the
  training text see to it, as SentencePiece itself can only keep all digits apart. Which pairs a longer number falls
  into is up to the merges, so they are not always counted from the left.
* Runs of spaces, of newlines and of tabs may become pieces (indented code).
"""

from __future__ import annotations

import heapq
import io
import os
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece

from megatron_iberis.tokenizer.sentencepiece_model import SentencePieceTokenizer
from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer, check_replaceable

KINDS = SentencePieceTokenizer.kinds
_FIXED_IDS = 1 + len(SPECIALS) + 256  # <unk>, specials, bytes
_CHUNK = 4_000  # characters; SentencePiece drops or refuses what is much longer than its "sentence"
_BOUNDARY = "\x1f"  # SentencePiece's own mark: no piece crosses it
# Characters that SentencePiece can't take in training (it gives them a meaning of its own) end a piece instead.
_RESERVED = str.maketrans(dict.fromkeys("\0\u2581\u2585", _BOUNDARY))
_DIGITS = re.compile("[0-9０-９]{1,2}")
_LINE_END = re.compile(r"\n(?=[^\n])")


def train(
    texts: Iterable[str],
    vocab_size: int,
    output: str | os.PathLike[str],
    kind: str = "bpe",
    sample_bytes: int = 100_000_000,
) -> Tokenizer:
    """Trains on `texts` (documents) and writes the tokenizer folder `output`.

    `kind` is "bpe" (packs more text into a token) or "unigram" (encodes faster). Of text beyond `sample_bytes` UTF-8
    bytes an even sample is used: SentencePiece needs about 22 bytes of memory per byte of text.
    ValueError if there is no text, if it does not support so many pieces, or if `output` can't be written.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no tokenizer kind {kind!r}: use {' or '.join(KINDS)}.")
    if vocab_size < 1:
        raise ValueError(_too_small(vocab_size, _FIXED_IDS + 1))
    if sample_bytes < 10**6:
        raise ValueError(f"a sample of {sample_bytes:,} bytes is too small to train on: use 1 MB or more.")
    check_replaceable(Path(output))
    counts = {"documents": 0, "bytes": 0, "bytes_used": 0}
    chunks = _sample(_chunks(texts, counts), sample_bytes)
    counts["bytes_used"] = sum(len(chunk) - chunk.count(_BOUNDARY.encode()) for chunk in chunks)
    if not chunks:
        raise ValueError("there is no text to train a tokenizer on: give files with text in them.")
    arguments = _arguments(vocab_size, kind)
    model = _train(chunks, arguments)
    tokenizer = SentencePieceTokenizer(model, {"kind": kind})
    tokenizer.manifest.update(
        vocab_size=tokenizer.vocab_size,
        specials=tokenizer.specials,
        sha256=tokenizer.fingerprint,
        training={
            **counts,
            "sample_bytes": sample_bytes,
            "sentencepiece": sentencepiece.__version__,
            "arguments": arguments,
        },
    )
    tokenizer.save(output)
    return tokenizer


def _arguments(vocab_size: int, kind: str) -> dict[str, Any]:
    """What SentencePiece is told; it stands in the manifest."""
    arguments: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": vocab_size,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "pretokenization_delimiter": _BOUNDARY,
        "unk_id": 0,
        "bos_id": 1,
        "bos_piece": SPECIALS[0],
        "eos_id": -1,
        "pad_id": -1,
        "control_symbols": list(SPECIALS[1:]),
        "max_sentence_length": 1 << 20,
        "num_threads": 16,  # fixed: the sums of the unigram training depend on it
        "minloglevel": 2,  # errors only; they also come as exceptions
    }
    if kind == "bpe":
        # A rare kanji gets a piece of its own where it earns it more than another word would: at 8,192 pieces that
        # packs 4 % more English and 1 % more Japanese than a fixed coverage, and any vocabulary size has a solution.
        arguments["auto_character_coverage"] = True
    else:
        arguments["character_coverage"] = 0.9995
    return arguments


def _train(chunks: list[bytes], arguments: dict[str, Any]) -> bytes:
    """Runs SentencePiece; the model file's bytes."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(chunks), model_writer=model, **arguments)
    except RuntimeError as error:
        message = str(error)
        if found := re.search(r"Vocabulary size too high.* <= (\d+)", message):
            raise ValueError(
                f"a vocabulary of {arguments['vocab_size']} is more than this text supports: "
                f"use at most {found[1]}, or give more text."
            ) from None
        if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            raise ValueError(_too_small(arguments["vocab_size"], int(found[1]))) from None
        if "number of meta pieces" in message:
            raise ValueError(_too_small(arguments["vocab_size"], _FIXED_IDS + 1)) from None
        raise ValueError(f"SentencePiece cannot train on this text: {message}") from error
    return model.getvalue()


def _too_small(vocab_size: int, least: int) -> str:
    return f"a vocabulary of {vocab_size} is too small for this text: use at least {least}."


def _chunks(texts: Iterable[str], counts: dict[str, int]) -> Iterator[bytes]:
    """Cuts documents at line ends (else where it must) into training sentences, with the boundary marks set."""
    for text in texts:
        counts["documents"] += 1
        start = 0
        while start < len(text):
            end = start + _CHUNK
            if end < len(text):
                line_end = text.rfind("\n", start, end) + 1
                end = line_end if line_end > start else end
            chunk = text[start:end]
            counts["bytes"] += len(chunk.encode())
            chunk = _DIGITS.sub(rf"{_BOUNDARY}\g<0>{_BOUNDARY}", chunk.translate(_RESERVED))
            yield _LINE_END.sub(f"\n{_BOUNDARY}", chunk).encode()
            start = end


def _sample(chunks: Iterable[bytes], limit: int) -> list[bytes]:
    """All chunks while they fit into `limit` bytes, else an even sample of them that does; in their order."""
    draw = random.Random(0).random
    kept: list[tuple[float, int, bytes]] = []
    size = 0
    for number, chunk in enumerate(chunks):
        heapq.heappush(kept, (draw(), number, chunk))
        size += len(chunk)
        while size > limit:
            size -= len(heapq.heappop(kept)[2])
    return [chunk for _, _, chunk in sorted(kept, key=lambda entry: entry[1])]
