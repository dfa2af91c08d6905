"""`SentencePieceTokenizer`: a SentencePiece model (BPE or unigram) that gives back every text exactly.

* SentencePiece trains it and reads its file. Encoding is csrc/bpe.h's and csrc/unigram.h's, with the very ids of
  SentencePiece's own encode on the whole text, several times as fast; decoding joins the pieces' bytes.
* What has no piece is spelled in byte pieces. So is a literal U+2581, which SentencePiece would make a space.
* The chat specials are control symbols.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sentencepiece

from megatron_iberis import _C
from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer, lone_surrogate

_SPACE = "\u2581"  # SentencePiece writes a space like this inside a piece
_ENCODERS = {"bpe": _C.BpeEncoder, "unigram": _C.UnigramEncoder}


class SentencePieceTokenizer(Tokenizer):
    """See `Tokenizer`."""

    kinds = tuple(_ENCODERS)
    model_file = "tokenizer.model"

    def __init__(self, model: bytes, manifest: dict[str, Any]) -> None:
        self._sp = sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        ids = range(sp.vocab_size())
        spelled = [_spelled(sp, i) for i in ids]
        super().__init__(model, manifest, {name: sp.piece_to_id(name) for name in SPECIALS}, spelled)
        in_text = [not (sp.is_byte(i) or sp.is_control(i) or sp.is_unknown(i)) for i in ids]
        self._encoder = _ENCODERS[manifest["kind"]](
            [piece if wanted else b"" for piece, wanted in zip(spelled, in_text, strict=True)],
            [sp.get_score(i) for i in ids],
            [sp.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)],
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


def _spelled(sp: Any, i: int) -> bytes:
    """The bytes that id i stands for."""
    piece: str = sp.id_to_piece(i)
    if sp.is_byte(i):
        return bytes([int(piece[3:5], 16)])  # <0x0A>
    if sp.is_control(i):
        return piece.encode()
    if sp.is_unknown(i):
        return "\ufffd".encode()  # never encoded, but a model may draw it
    return piece.replace(_SPACE, " ").encode()
