"""A tokenizer of ours as a `tokenizer.json` of the tokenizers package: the very same ids.

* SentencePiece BPE: a BPE over characters. Every way in which a piece falls into two others is a merge, and the
  piece's score is its rank; what has no piece is spelled in byte pieces.
* SentencePiece unigram, and tiktoken's BPE: over bytes, each written as a character (GPT-2's table). For unigram that
  keeps "<0x0A>" typed in a text apart from the byte piece of that name.
* Spaces stand in the pieces as they are, so that a U+2581 in the text stays what it is.
* SentencePiece adds up unigram weights in fp32 and the tokenizers package in fp64. Where two ways to split a text
  weigh the same but for that rounding, each may take another: 2 tokens in 100,000 (docs/measurements.md).
* Text is opened by bos, as every document in training is.
* The specials are recognised where a text spells them: transformers cannot be kept from it but with
  `split_special_tokens=True`. (The chat template spells none that a message holds.)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer

from megatron_iberis.tokenizer import SPECIALS, Tokenizer

BOS, END = SPECIALS[0], "<|assistant_end|>"
PADDING = "<|pad|>"
"""What SentencePiece's <unk> is called here: an id that no text has, so it may fill up the rows of a batch."""


def fast_tokenizer(tokenizer: Tokenizer) -> FastTokenizer:
    """The same tokenizer as the tokenizers package runs it."""
    build = {"bpe": _characters, "unigram": _weighed_bytes, "tiktoken": _merged_bytes}[tokenizer.manifest["kind"]]
    fast = build(tokenizer.model)
    names = sorted(tokenizer.specials, key=lambda name: tokenizer.specials[name])
    specials = [PADDING, *names] if has_padding(tokenizer) else names
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    fast.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, tokenizer.bos_id)]
    )
    return fast


def same_ids(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> bool:
    """Whether `ids` are what `tokenizer` makes of `text`; for unigram, or what weighs the same but for rounding."""
    wanted = tokenizer.encode(text)
    if list(ids) == wanted or tokenizer.manifest["kind"] != "unigram":
        return list(ids) == wanted
    sp, _ = _pieces(tokenizer.model)
    weights = [sum(sp.get_score(list(way))) for way in (ids, wanted)]
    rounding = 2**-24 * len(wanted) * abs(weights[1])
    return tokenizer.decode_bytes(ids) == text.encode() and abs(weights[0] - weights[1]) <= rounding


def tokenizer_config(tokenizer: Tokenizer, longest: int) -> dict[str, Any]:
    """tokenizer_config.json. longest: tokens that the model was trained on at once.

    The class is the one that transformers takes as it is; of one that is named after a model it would rebuild parts.
    """
    padding = PADDING if has_padding(tokenizer) else BOS
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": padding,
        "extra_special_tokens": [name for name in tokenizer.specials if name not in (BOS, END)],
        "model_max_length": longest,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }


def has_padding(tokenizer: Tokenizer) -> bool:
    """Whether there is an id that no text has."""
    return tokenizer.manifest["kind"] != "tiktoken"


def _pieces(model: bytes) -> tuple[Any, list[str | None]]:
    """The SentencePiece model, and the text that each of its ids stands for; None for ids that are no text."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    apart = [sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i) for i in range(sp.vocab_size())]
    return sp, [None if apart[i] else sp.id_to_piece(i).replace("\u2581", " ") for i in range(sp.vocab_size())]


def _characters(model: bytes) -> FastTokenizer:
    sp, pieces = _pieces(model)
    names = [PADDING if sp.is_unknown(i) else piece or sp.id_to_piece(i) for i, piece in enumerate(pieces)]
    texts = [piece for piece in pieces if piece is not None]
    score = {piece: sp.get_score(i) for i, piece in enumerate(pieces) if piece is not None}
    ranked = sorted(texts, key=lambda piece: -score[piece])
    vocabulary = {name: i for i, name in enumerate(names)}
    fast = FastTokenizer(models.BPE(vocabulary, list(_merges(ranked)), byte_fallback=True))
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return fast


def _weighed_bytes(model: bytes) -> FastTokenizer:
    sp, pieces = _pieces(model)
    texts = {_as_characters(piece.encode()) for piece in pieces if piece is not None}
    lowest = min(sp.get_score(i) for i, piece in enumerate(pieces) if piece is not None) - 10
    vocabulary: list[tuple[str, float]] = []
    for i, piece in enumerate(pieces):
        name = sp.id_to_piece(i)
        if piece is not None:
            vocabulary.append((_as_characters(piece.encode()), sp.get_score(i)))
        elif sp.is_byte(i) and (spelled := _as_characters(bytes([int(name[3:5], 16)]))) not in texts:
            vocabulary.append((spelled, lowest))
        else:  # no text gives it: spelled out, it is always dearer than its letters one by one
            vocabulary.append((PADDING if sp.is_unknown(i) else name, 100 * lowest))
    fast = FastTokenizer(models.Unigram(vocabulary, unk_id=sp.unk_id()))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.ByteLevel()])
    return fast


def _merged_bytes(model: bytes) -> FastTokenizer:
    content = json.loads(model)
    ranked = [_as_characters(base64.b64decode(text)) for text in content["merges"]]
    vocabulary = {piece: i for i, piece in enumerate(ranked)}
    fast = FastTokenizer(models.BPE(vocabulary, list(_merges(ranked)), ignore_merges=True))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(content["pattern"]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    return fast


def _merges(ranked: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each way to make a piece of two others, the pieces that are made first coming first."""
    known = set(ranked)
    for piece in ranked:
        for cut in range(1, len(piece)):
            if piece[:cut] in known and piece[cut:] in known:
                yield piece[:cut], piece[cut:]


def _gpt2_table() -> dict[int, str]:
    """Byte -> the character that writes it: itself where it is printable in Latin-1, else one from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


_TABLE = _gpt2_table()


def _as_characters(text: bytes) -> str:
    return "".join(_TABLE[byte] for byte in text)
