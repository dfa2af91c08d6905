"""What a disk refuses is found out before the work, and said in one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.storage.refusals import check_writable, explain


def test_what_can_be_written_passes_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "not" / "there")
    (tmp_path / "file").touch()
    check_writable(tmp_path / "a" / "b" / "file")
    check_writable(tmp_path / "file")
    for folder in "new", "disk", "link":
        check_writable(tmp_path / folder, folder=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "file", "link"]
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "folder", "sentence"),
    [
        ("file", True, "file is a file: choose another name"),
        ("folder", False, "folder is a folder: choose another name"),
        ("file/inner", True, "file is a file, so .*inner cannot be written"),
        ("x" * 300, False, "too long for a name|File name too long"),
        ("a/" + "x" * 300, True, "too long for a name|File name too long"),
        ("loop", False, "loop"),
        ("/proc/sys/tokenizer", True, "cannot write /proc/sys/tokenizer"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str, folder: bool, sentence: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop" / "inner")
    with pytest.raises(InputError, match=sentence):
        check_writable(tmp_path / name, folder)


def test_a_refusal_says_what_to_do() -> None:
    def said(number: int) -> str:
        return explain(OSError(number, os.strerror(number)), "no/such/place")

    assert "the disk is full (" in said(errno.ENOSPC)
    assert "the quota on its disk is used up" in said(errno.EDQUOT)
    for number in errno.ENOSPC, errno.EDQUOT, errno.EFBIG:
        assert said(number).endswith(": free space or choose another folder.")
    assert said(errno.EACCES).endswith("(Permission denied): check the path and its rights, or choose another.")
    assert "the disk is full" in explain(RuntimeError("I/O error: No space left on device (os error 28)"), ".")
