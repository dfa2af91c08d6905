"""Text files -> token files: `PREFIX_text_document.bin/.idx/.json`, and `PREFIX_val_text_document.*` on request.

This process reads and writes, worker processes parse and encode (workers.py). Documents keep the order of the input,
so the output's bytes do not depend on the number of workers. Nothing has a final name before all is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from megatron_iberis.data.token_file import TokenFileWriter, token_dtype
from megatron_iberis.text.inputs import find_inputs
from megatron_iberis.text.readers import Batch, read_batches
from megatron_iberis.text.records import Document, Tally, parse
from megatron_iberis.text.workers import map_ordered
from megatron_iberis.tokenizer import Tokenizer

TRAIN, VALIDATION = "train", "validation"
_SUFFIX = {TRAIN: "_text_document", VALIDATION: "_val_text_document"}


@dataclass(frozen=True)
class PreprocessConfig:
    """What to preprocess and how; the command line's arguments, and what the manifest records of them."""

    input: Sequence[str]  # files, folders, globs
    tokenizer: str  # folder
    output_prefix: str
    workers: int = 1
    json_key: str = "text"
    prepend_bos: bool = True  # each document begins with <|bos|>, as nanochat has it
    val_fraction: float = 0.0  # of the documents, by a hash of their split key
    split_key: str | None = None  # JSON key or column; None: the text itself

    def check(self) -> None:
        """ValueError if a value makes no sense."""
        if self.workers < 1:
            raise ValueError(f"there can't be {self.workers} workers: use --workers 1 or more.")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"--val-fraction must be at least 0 and below 1, not {self.val_fraction}.")
        if self.split_key is not None and not self.val_fraction:
            raise ValueError("--split-key says how to split: give --val-fraction too, or leave it out.")


@dataclass
class Counts:
    """What went into one token file, or came from one input file."""

    documents: int = 0
    tokens: int = 0  # with <|bos|>
    text_bytes: int = 0

    def add(self, other: Counts) -> None:
        self.documents += other.documents
        self.tokens += other.tokens
        self.text_bytes += other.text_bytes

    def report(self, specials_per_document: int) -> dict[str, Any]:
        """For the manifest; the bytes per token are those of the text, without the specials."""
        text_tokens = self.tokens - specials_per_document * self.documents
        return {
            **dataclasses.asdict(self),
            "bytes_per_token": round(self.text_bytes / text_tokens, 4) if text_tokens else None,
        }


@dataclass
class Encoded:
    """The documents of a batch that belong to one split, encoded: flat ids and the documents' lengths."""

    ids: np.ndarray
    lengths: np.ndarray
    counts: Counts


@dataclass
class EncodedBatch:
    """What a worker makes of a batch."""

    path: str
    consumed: int  # bytes of the input file
    tally: Tally
    splits: dict[str, Encoded]


@dataclass
class Summary:
    """What was done. `splits` and `files` count by token file and by input file."""

    tally: Tally = field(default_factory=Tally)
    splits: dict[str, Counts] = field(default_factory=dict)
    files: dict[str, Counts] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)  # prefixes of the token files

    @property
    def total(self) -> Counts:
        total = Counts()
        for counts in self.splits.values():
            total.add(counts)
        return total

    def add(self, batch: EncodedBatch) -> None:
        self.tally.add(batch.tally)
        file = self.files.setdefault(batch.path, Counts())
        for split, encoded in batch.splits.items():
            file.add(encoded.counts)
            self.splits[split].add(encoded.counts)


class Encoder:
    """Batch -> EncodedBatch: what every worker does."""

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config
        self.tokenizer = Tokenizer.load(config.tokenizer)
        self.dtype = token_dtype(self.tokenizer.vocab_size)
        self.prefix = np.array([self.tokenizer.bos_id] if config.prepend_bos else [], dtype=np.int32)

    def __call__(self, batch: Batch) -> EncodedBatch:
        config, tally = self.config, Tally()
        documents: dict[str, list[np.ndarray]] = {TRAIN: [], VALIDATION: []}
        counts = {TRAIN: Counts(), VALIDATION: Counts()}
        for document in parse(batch, config.json_key, config.split_key, tally):
            ids = np.concatenate([self.prefix, self.tokenizer.encode_array(document.text)])
            split = VALIDATION if in_validation(document, config.val_fraction) else TRAIN
            documents[split].append(ids)
            counts[split].add(Counts(1, len(ids), document.size))
        splits = {
            split: Encoded(
                np.concatenate(arrays).astype(self.dtype),
                np.array([len(ids) for ids in arrays], dtype=np.int32),
                counts[split],
            )
            for split, arrays in documents.items()
            if arrays
        }
        return EncodedBatch(batch.path, batch.consumed, tally, splits)


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


def preprocess(
    config: PreprocessConfig, progress: Callable[[int, int, int], None] = lambda read, size, text_bytes: None
) -> Summary:
    """Does it all; returns what was done.

    `progress(read, size, text_bytes)` is called after each batch: bytes read of the input files, their sum, and bytes
    of text encoded. ValueError with the fix for bad input, settings that make no sense or a full disk;
    ChildProcessError if a worker died.
    """
    config.check()
    files = find_inputs(config.input)
    tokenizer = Tokenizer.load(config.tokenizer)
    size = sum(file.size for file in files)
    names = [TRAIN, VALIDATION] if config.val_fraction else [TRAIN]
    summary = Summary(splits={name: Counts() for name in names})
    read = 0
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(TokenFileWriter(config.output_prefix + _SUFFIX[name], tokenizer.vocab_size))
            for name in names
        }
        batches = read_batches(files, config.json_key, config.split_key)
        for batch in map_ordered(partial(Encoder, config), batches, config.workers):
            summary.add(batch)
            for split, encoded in batch.splits.items():
                writers[split].add_documents(encoded.ids, encoded.lengths)
            read += batch.consumed
            progress(read, size, summary.total.text_bytes)
        _check(summary, config)
        for split, writer in writers.items():
            writer.finalize(_manifest(config, tokenizer, summary, split))
            summary.outputs.append(writer.prefix)
    return summary


def _check(summary: Summary, config: PreprocessConfig) -> None:
    """ValueError if a split came out empty."""
    summary.tally.check_usable(config.json_key)
    written = summary.total.documents
    if written != summary.tally.usable:
        raise RuntimeError(f"{summary.tally.usable} documents were read, but {written} written: this is a bug.")
    for split, counts in summary.splits.items():
        if not counts.documents:
            by = "texts" if config.split_key is None else f"values of {config.split_key!r}"
            raise ValueError(
                f"none of the {written:,} documents fell into the {split} split: use another --val-fraction than "
                f"{config.val_fraction}, or more documents with different {by}."
            )


def _manifest(config: PreprocessConfig, tokenizer: Tokenizer, summary: Summary, split: str) -> dict[str, Any]:
    tally = summary.tally
    specials = int(config.prepend_bos)
    return {
        "split": split,
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        **summary.splits[split].report(specials),
        # Of the whole run: read = written (over all splits) + empty + rejected.
        "input": {
            "read": tally.read,
            "written": {name: counts.documents for name, counts in summary.splits.items()},
            "empty": tally.empty,
            "rejected": {kind: dataclasses.asdict(rejects) for kind, rejects in tally.rejected.items()},
        },
        "files": {path: counts.report(specials) for path, counts in summary.files.items()},
        "arguments": {**dataclasses.asdict(config), "input": list(config.input)},
    }
