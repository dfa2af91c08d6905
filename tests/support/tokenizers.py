"""A small bilingual tokenizer, trained once."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from megatron_iberis.tokenizer import Tokenizer, train
from tests.tokenizer.conftest import VOCAB_SIZE, sample_texts


@cache
def small_tokenizer() -> Tokenizer:
    """BPE, so small that most kanji are spelled in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return train(sample_texts(), VOCAB_SIZE, Path(folder) / "tokenizer")
