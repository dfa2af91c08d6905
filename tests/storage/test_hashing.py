"""Hashes are of the whole file, whatever its size is beside a block's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from megatron_iberis.storage import hashing


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 24])
def test_a_hash_is_of_all_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(hashing, "BLOCK", 8)
    content = bytes(range(size))
    (tmp_path / "file").write_bytes(content)
    assert hashing.hash_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    begun = hashlib.sha256(b"before")
    assert hashing.hash_file(tmp_path / "file", begun) == hashlib.sha256(b"before" + content).hexdigest()
