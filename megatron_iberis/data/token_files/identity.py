"""Whether a token file is still the one that it was, in milliseconds whatever its size."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from megatron_iberis.data.token_files.reader import TokenFile

_BLOCKS, _BLOCK = 64, 1 << 12


def identity(file: TokenFile) -> dict[str, Any]:
    """What tells this file from others: counts, hashes, where there is a manifest its sha256 of all tokens."""
    recorded = (file.manifest or {}).get("sha256")
    whole = {"sha256": recorded["bin"]} if isinstance(recorded, dict) and "bin" in recorded else {}
    return {
        "tokens": file.num_tokens,
        "documents": file.num_documents,
        "blocks": _hash_of_blocks(f"{file.prefix}.bin"),
        "index_blocks": _hash_of_blocks(f"{file.prefix}.idx"),
        **whole,
    }


def is_other(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two identities are of different files; what only one of them knows does not count."""
    return any(before[name] != now[name] for name in before.keys() & now.keys())


def _hash_of_blocks(path: str) -> str:
    """Of the file's size and of blocks spread evenly over it, from its beginning to its end; hex."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as stream:
        for number in range(_BLOCKS):
            stream.seek(max(0, size - _BLOCK) * number // (_BLOCKS - 1))
            digest.update(stream.read(_BLOCK))
    return digest.hexdigest()
