"""Bits per byte of held-out text, a language at a time: of a token file, or of text files.

Rows of the model's context, one after the other, none of which sees another. Tokens without text (specials) count
for nothing; of a document's first row the first token is <|bos|>.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from megatron_iberis.data.token_files.names import is_token_file, token_file_prefix
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Marked
from megatron_iberis.evaluation.questions import Likelihood, Question, Reply
from megatron_iberis.tokenizer import Tokenizer


class TextRows:
    """A text's rows as a `Benchmark` without a score. context: tokens that a row predicts; limit: rows, 0: all."""

    chance = 0.0

    def __init__(self, language: str, path: str, tokenizer: Tokenizer, context: int, limit: int = 0) -> None:
        self.name = f"text-{language}"
        self.settings: Mapping[str, Any] = {"text": path, "language": language, "kind": "text"}
        self._counts = tokenizer.token_bytes()
        rows = _rows_of_token_file(path, tokenizer, context) if is_token_file(path) else None
        rows = _rows_of_texts(path, tokenizer, context) if rows is None else rows
        self._rows: list[tuple[int, ...]] = []
        for row in rows:
            if limit and len(self._rows) == limit:
                break
            if len(row) > 1:
                self._rows.append(row)
        if not self._rows:
            raise InputError(f"{path} holds no text: give --text a token file, or files with text.")

    def __len__(self) -> int:
        return len(self._rows)

    def ask(self, index: int) -> list[Question]:
        return [Likelihood(self._rows[index], 1)]

    def mark(self, index: int, replies: Sequence[Reply]) -> Marked:
        counts = self._counts[list(self._rows[index][1:])]
        nats = -sum(x for x, count in zip(replies[0].logprobs, counts, strict=True) if count)
        return Marked(None, None, "", nats, int(counts.sum()))


def _rows_of_token_file(path: str, tokenizer: Tokenizer, context: int) -> Iterator[tuple[int, ...]]:
    file = TokenFile(token_file_prefix(path))
    manifest: Mapping[str, Any] = file.manifest or {}
    made_with = manifest.get("tokenizer")
    if made_with and made_with != tokenizer.fingerprint:
        raise InputError(f"{path} was made with another tokenizer than the checkpoint's: give text files instead.")
    for start in range(0, file.num_tokens - 1, context):
        row = np.asarray(file.tokens(start, min(context + 1, file.num_tokens - start)))
        if int(row.max()) >= tokenizer.vocab_size:
            raise InputError(
                f"{path} was made with another tokenizer than the checkpoint's: give text files instead."
            )
        yield tuple(row.tolist())


def _rows_of_texts(path: str, tokenizer: Tokenizer, context: int) -> Iterator[tuple[int, ...]]:
    from megatron_iberis.text.reading.inputs import find_inputs
    from megatron_iberis.text.reading.records import Tally, read_documents

    for document in read_documents(find_inputs([path]), "text", Tally()):
        ids = [tokenizer.bos_id, *tokenizer.encode(document.text)]
        for start in range(0, len(ids) - 1, context):
            yield tuple(ids[start : start + context + 1])
