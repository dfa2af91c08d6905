"""Raw records -> token ids: what every worker does, and what it sends back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from megatron_iberis.data.token_files.reader import token_dtype
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.ordering.similarity import KEYS_OF, keys_of
from megatron_iberis.text.reading.batch import Position, RawBatch
from megatron_iberis.text.reading.records import Document, Reject, Tally, parse
from megatron_iberis.tokenizer import Tokenizer


def document_dtype(dedup: str | None) -> np.dtype[Any]:
    """What is kept of a document beside its ids: `keys` are the hashes that duplicates share (similarity.py)."""
    return np.dtype(
        [
            ("tokens", "<u4"),
            ("split", "u1"),  # number in PreprocessConfig.splits
            ("file", "<u4"),
            ("line", "<u8"),
            ("bytes", "<u8"),  # of UTF-8
            ("keys", "<u8", (KEYS_OF[dedup],)),
        ]
    )


@dataclass
class EncodedBatch:
    """What a worker makes of a batch. `documents` [n] are of document_dtype; `ids` by split, as bytes of the .bin."""

    path: str
    end: Position
    bytes_read: int
    tally: Tally
    rejects: list[Reject]
    documents: np.ndarray
    ids: list[bytes]


class BatchEncoder:
    """RawBatch -> EncodedBatch."""

    def __init__(self, config: PreprocessConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.before, self.after = (
            np.array([tokenizer.bos_id] if wanted else [], self.dtype).tobytes()
            for wanted in (config.prepend_bos, config.append_eod)
        )

    def __call__(self, batch: RawBatch) -> EncodedBatch:
        config, tally = self.config, Tally()
        ids: list[list[bytes]] = [[], []]
        rejects: list[Reject] = []
        texts: list[str] = []
        rows: list[tuple[int, int, int, int, int]] = []
        for item in parse(batch, config.json_key, config.split_key, tally, config.min_chars):
            if isinstance(item, Reject):
                rejects.append(item)
                continue
            tokens = self.tokenizer.encode_array(item.text).astype(self.dtype)
            split = int(in_validation(item, config.val_fraction))
            ids[split] += [self.before, tokens.tobytes(), self.after]
            rows.append((len(tokens) + config.specials_per_document, split, batch.start.file, item.line, item.size))
            texts.append(item.text)
        documents = np.zeros(len(rows), document_dtype(config.dedup))
        for column, name in enumerate(("tokens", "split", "file", "line", "bytes")):
            documents[name] = [row[column] for row in rows]
        documents["keys"] = keys_of(texts, config.dedup)
        encoded = [b"".join(parts) for parts in ids]
        return EncodedBatch(batch.path, batch.end, batch.bytes_read, tally, rejects, documents, encoded)


def in_validation(document: Document, fraction: float) -> bool:
    """Whether a document belongs to the validation split: the same on every machine and in every order of files.

    Documents with equal keys go together. A key counts up to its first " (", as parts of one work are often named
    like "book (chapter 3)"; without a key the text itself is hashed.
    """
    if not fraction:
        return False
    key = document.text if document.key is None else document.key.split(" (")[0]
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64
