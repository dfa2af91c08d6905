"""What is in a token file, for the eye: counts, lengths, a histogram, one document decoded."""

from __future__ import annotations

import numpy as np

from megatron_iberis.data.token_files.names import token_file_prefix
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer

_BAR = 40  # characters of the longest bar


def open_token_file(prefix: str) -> TokenFile:
    """The token file of `prefix`, which may also be what --output-prefix was, or end in .bin or .idx."""
    return TokenFile(token_file_prefix(prefix))


def describe(file: TokenFile) -> list[tuple[str, str]]:
    """Labels and values: counts and lengths in tokens, and what the manifest adds."""
    lengths = document_lengths(file)
    rows = [
        ("token file", file.prefix),
        ("documents", f"{len(lengths):,}"),
        ("tokens", f"{file.num_tokens:,} ({file.dtype})"),
        ("shortest", f"{lengths.min():,} tokens (document {lengths.argmin()})"),
        ("median", f"{int(np.median(lengths)):,} tokens"),
        ("longest", f"{lengths.max():,} tokens (document {lengths.argmax()})"),
    ]
    manifest = file.manifest or {}
    if "text_bytes" in manifest:
        rows.append(("text", f"{manifest['text_bytes']:,} bytes, {manifest['bytes_per_token']} a token"))
    if "tokenizer" in manifest:
        rows.append(("tokenizer", f"{manifest['tokenizer'][:12]}, {manifest['vocab_size']:,} ids"))
    return rows


def histogram(file: TokenFile) -> list[str]:
    """Lines of a histogram of the documents' lengths, a bar for each doubling."""
    lengths = document_lengths(file)
    counts = np.bincount(np.frexp(lengths)[1])  # bin b: lengths from 2^(b-1) to 2^b - 1; bin 0: empty documents
    first = int(np.flatnonzero(counts)[0])
    width = len(f"{2 ** len(counts):,}")
    return [
        f"{2 ** (b - 1) if b else 0:>{width},} - {max(2**b - 1, 0):<{width},}  {count:>10,}  "
        + "#" * -(-_BAR * int(count) // int(counts.max()))
        for b, count in enumerate(counts)
        if b >= first
    ]


def decode_document(file: TokenFile, number: int, tokenizer: Tokenizer) -> str:
    """Document `number` as text, specials spelled out. InputError if there is none or if it has another tokenizer."""
    check_tokenizer(file, tokenizer)
    if not 0 <= number < file.num_documents:
        raise InputError(f"{file.prefix} has no document {number}: choose 0 to {file.num_documents - 1:,}.")
    sequences = range(file.document_index[number], file.document_index[number + 1])
    return tokenizer.decode([int(i) for s in sequences for i in file[s]])


def check_tokenizer(file: TokenFile, tokenizer: Tokenizer) -> None:
    """InputError if the file was made with another one."""
    made_with = (file.manifest or {}).get("tokenizer", tokenizer.fingerprint)
    if made_with != tokenizer.fingerprint:
        raise InputError(
            f"{file.prefix} was made with another tokenizer ({made_with[:12]}, not {tokenizer.fingerprint[:12]}): "
            "give --tokenizer the folder that preprocess.py was given."
        )


def document_lengths(file: TokenFile) -> np.ndarray:
    """Tokens of each document, int64 [num_documents]."""
    ends = np.concatenate([[0], np.cumsum(file.lengths, dtype=np.int64)])
    lengths: np.ndarray = np.diff(ends[file.document_index])
    return lengths
