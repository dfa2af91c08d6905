"""`verify`: is a token file what it was when it was made? Reads every byte of it, in constant memory."""

from __future__ import annotations

import hashlib

import numpy as np

from megatron_iberis.data.token_files.inspection import check_tokenizer
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.storage.hashing import blocks, hash_file
from megatron_iberis.tokenizer import Tokenizer

_REMAKE = "make it again with data_tools/preprocess.py, or copy it again."


def verify(file: TokenFile, tokenizer: Tokenizer | None = None) -> list[tuple[str, str]]:
    """Checks the index, every id against the vocabulary, and both files against the manifest's counts and sha256.

    Labels and values of what was checked. `tokenizer` says how large the vocabulary is where there is no manifest.
    InputError naming the first thing that is wrong.
    """
    if tokenizer is not None:
        check_tokenizer(file, tokenizer)
    manifest = file.manifest or {}
    vocab_size = manifest.get("vocab_size", tokenizer and tokenizer.vocab_size)
    file.verify()
    rows = [("index", f"{file.num_documents:,} documents, {file.num_tokens:,} tokens: consistent with the .bin")]
    for name, count in (("documents", file.num_documents), ("tokens", file.num_tokens)):
        if manifest.get(name, count) != count:
            raise InputError(f"{file.prefix}.json tells of {manifest[name]:,} {name}, not {count:,}: {_REMAKE}")
    largest, digest = _scan(file, vocab_size)
    rows.append(("ids", f"0 to {largest:,}" + (f", all below {vocab_size:,}" if vocab_size else "")))
    if "sha256" not in manifest:
        rows.append(("sha256", "not known: there is no manifest that tells it"))
        return rows
    for kind, found in (("bin", digest), ("idx", hash_file(f"{file.prefix}.idx"))):
        if manifest["sha256"][kind] != found:
            raise InputError(f"{file.prefix}.{kind} is not the file that {file.prefix}.json tells of: {_REMAKE}")
    return [*rows, ("sha256", "as in the manifest")]


def _scan(file: TokenFile, vocab_size: int | None) -> tuple[int, str]:
    """The largest id, and the sha256 of the .bin."""
    digest = hashlib.sha256()
    largest = position = 0
    for block in blocks(file.prefix + ".bin"):
        digest.update(block)
        ids = np.frombuffer(block, file.dtype)
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or (vocab_size is not None and high >= vocab_size):
            wrong = (ids < 0) | (ids >= (vocab_size or 2**31))
            token = position + int(wrong.argmax())
            raise InputError(
                f"token {token:,} of {file.prefix}.bin is {ids[wrong.argmax()]}, which is outside the vocabulary "
                f"of {vocab_size or 2**31:,}: {_REMAKE}"
            )
        largest = max(largest, high)
        position += len(ids)
    return largest, digest.hexdigest()
