"""`train`: text -> a tokenizer folder. The same text and arguments give the same bytes; no network.

* SentencePiece with byte fallback and nothing normalised: every text survives (sentencepiece_model.py).
* What a piece may hold is decided by marks in the training text (sentences.py).
* Runs of spaces, of newlines and of tabs may become pieces (indented code).
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import sentencepiece

from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer.sentencepiece_model import SentencePieceTokenizer
from megatron_iberis.tokenizer.sentences import MARK, Counts, check_weights, sample
from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer, check_output

KINDS = SentencePieceTokenizer.kinds
_FIXED_IDS = 1 + len(SPECIALS) + 256  # <unk>, specials, bytes


def train(
    texts: Iterable[str] | Mapping[str, Iterable[str]],
    vocab_size: int,
    output: str | os.PathLike[str],
    kind: str = "bpe",
    sample_bytes: int = 100_000_000,
    weights: Mapping[str, float] | None = None,
) -> Tokenizer:
    """Trains on `texts` (documents, or each source's documents by its name) and writes the tokenizer folder `output`.

    `kind` is "bpe" (packs more text into a token) or "unigram" (encodes faster). Of text beyond `sample_bytes` UTF-8
    bytes an even sample is used: SentencePiece needs about 22 bytes of memory per byte of text. `weights` (one for
    each source) sets the sources' shares of the bytes that are used; without, each has its natural share.
    InputError if there is no text, if it does not support so many pieces, or if `output` can't be written.
    """
    if kind not in KINDS:
        raise InputError(f"there is no tokenizer kind {kind!r}: use {' or '.join(KINDS)}.")
    if vocab_size < 1:
        raise InputError(_too_small(vocab_size, _FIXED_IDS + 1))
    if sample_bytes < 10**6:
        raise InputError(f"a sample of {sample_bytes:,} bytes is too small to train on: use 1 MB or more.")
    check_output(output)
    sources = texts if isinstance(texts, Mapping) else {"": texts}
    if weights:
        check_weights(sources, weights)
    chunks, counts = sample(sources, sample_bytes, weights)
    arguments = _arguments(vocab_size, kind)
    model = _train(chunks, arguments)
    tokenizer = SentencePieceTokenizer(model, {"kind": kind})
    tokenizer.manifest.update(
        vocab_size=tokenizer.vocab_size,
        specials=tokenizer.specials,
        sha256=tokenizer.fingerprint,
        training={
            **{
                field.name: sum(getattr(of_source, field.name) for of_source in counts.values())
                for field in dataclasses.fields(Counts)
            },
            "sources": {name: dataclasses.asdict(of_source) for name, of_source in counts.items() if name},
            "weights": dict(weights or {}),
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
        "pretokenization_delimiter": MARK,
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
            raise InputError(
                f"a vocabulary of {arguments['vocab_size']} is more than this text supports: "
                f"use at most {found[1]}, or give more text."
            ) from None
        if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            raise InputError(_too_small(arguments["vocab_size"], int(found[1]))) from None
        if "number of meta pieces" in message:
            raise InputError(_too_small(arguments["vocab_size"], _FIXED_IDS + 1)) from None
        raise InputError(f"SentencePiece cannot train on this text: {message}") from error
    return model.getvalue()


def _too_small(vocab_size: int, least: int) -> str:
    return f"a vocabulary of {vocab_size} is too small for this text: use at least {least}."
