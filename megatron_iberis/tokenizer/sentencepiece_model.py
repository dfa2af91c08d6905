"""`SentencePieceTokenizer`: a SentencePiece model (BPE or unigram) that gives back every text exactly.

* SentencePiece trains it and reads its file. Encoding is csrc/tokenizer/'s, with the very ids of SentencePiece's
  own encode on the whole text, several times as fast; decoding joins the pieces' bytes.
* What has no piece is spelled in byte pieces. So is a literal U+2581, which SentencePiece would make a space.
* The chat specials are control symbols.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import sentencepiece

from megatron_iberis import _C
from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer, lone_surrogate

_SPACE = "\u2581"  # SentencePiece writes a space like this inside a piece
_BYTE = "<0x{:02X}>"  # a byte piece
_ENCODERS = {"bpe": _C.BpeEncoder, "unigram": _C.UnigramEncoder}


class SentencePieceTokenizer(Tokenizer):
    """See `Tokenizer`."""

    kinds = tuple(_ENCODERS)
    model_file = "tokenizer.model"

    def __init__(self, model: bytes, manifest: dict[str, Any]) -> None:
        self._sp = sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._not_text = _spelled_otherwise(sp)
        pieces = sp.id_to_piece(list(range(sp.vocab_size())))
        texts = (piece.replace(_SPACE, " ").encode() for piece in pieces)
        spelled = [self._not_text.get(i, text) for i, text in enumerate(texts)]
        super().__init__(model, manifest, {name: sp.piece_to_id(name) for name in SPECIALS}, spelled)

    @cached_property
    def _encoder(self) -> _C.Encoder:
        return _ENCODERS[self.manifest["kind"]](
            [b"" if i in self._not_text else piece for i, piece in enumerate(self._bytes)],
            self._sp.get_score(list(range(self.vocab_size))),
            [self._sp.piece_to_id(_BYTE.format(byte)) for byte in range(256)],
        )

    @classmethod
    def from_model(cls, model: bytes, manifest: dict[str, Any]) -> Tokenizer:
        return cls(model, manifest)

    def encode_array(self, text: str) -> np.ndarray:
        try:
            return self._encoder.encode(text)
        except UnicodeEncodeError:
            raise lone_surrogate(text) from None

    def token_bytes(self) -> np.ndarray:
        counts = super().token_bytes()
        counts[self._sp.unk_id()] = 0  # never encoded
        return counts


def _spelled_otherwise(sp: Any) -> dict[int, bytes]:
    """The bytes of the ids that are not pieces of text."""
    controls = {i: sp.id_to_piece(i).encode() for i in range(sp.vocab_size()) if sp.is_control(i)}
    single = {sp.piece_to_id(_BYTE.format(byte)): bytes([byte]) for byte in range(256)}
    unknown = {sp.unk_id(): "\ufffd".encode()}  # never encoded, but a model may draw it
    return {**controls, **single, **unknown}
