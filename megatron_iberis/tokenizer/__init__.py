"""Text <-> ids: lossless tokenizers and how to get one. Light to import: no torch."""

from megatron_iberis.tokenizer.sentencepiece_model import SentencePieceTokenizer
from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer
from megatron_iberis.tokenizer.training import train

__all__ = ["SPECIALS", "SentencePieceTokenizer", "Tokenizer", "train"]
