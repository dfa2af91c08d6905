"""Text <-> ids: lossless tokenizers and how to get one. Light to import: no torch."""

from megatron_iberis.tokenizer.nanochat import import_nanochat
from megatron_iberis.tokenizer.sentencepiece_model import SentencePieceTokenizer
from megatron_iberis.tokenizer.tiktoken_model import TiktokenTokenizer
from megatron_iberis.tokenizer.tokenizer import SPECIALS, Tokenizer
from megatron_iberis.tokenizer.training import train

__all__ = ["SPECIALS", "SentencePieceTokenizer", "TiktokenTokenizer", "Tokenizer", "import_nanochat", "train"]
