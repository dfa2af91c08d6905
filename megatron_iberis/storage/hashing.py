"""Hashes of files, in constant memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

BLOCK = 8 << 20  # bytes, a multiple of every token's size


def blocks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The file's content, BLOCK bytes at a time."""
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def hash_file(path: str | os.PathLike[str], digest: Any = None) -> str:
    """The file's content added to `digest` (an object of hashlib's kind; by default a new sha256), hex."""
    digest = digest or hashlib.sha256()
    for block in blocks(path):
        digest.update(block)
    found: str = digest.hexdigest()
    return found
