"""Text <-> ids: a lossless SentencePiece tokenizer and how to train one. Light to import: no torch."""

from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer
from megatron_iberis.tokenizer.training import train

__all__ = ["SPECIALS", "Tokenizer", "train"]
