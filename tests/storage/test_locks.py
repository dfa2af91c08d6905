"""One writer at a time; a file system without locks keeps nobody from working."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_iberis.checkpoint import files
from megatron_iberis.checkpoint.verify import describe, write_manifest
from megatron_iberis.storage.locks import claim, lock

NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_one_writes_or_many_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    readers = [lock(file, shared=True), lock(file, shared=True)]
    with pytest.raises(BlockingIOError):
        lock(file)
    for reader in readers:
        reader.close()
    writer = lock(file)
    with pytest.raises(BlockingIOError):
        lock(file, shared=True)
    writer.close()
    claim(tmp_path).close()


@pytest.mark.parametrize("number", [0, *NO_LOCKS])
def test_a_folder_has_one_writer_with_locks_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    if number:
        without_locks(monkeypatch, number)
    folder = tmp_path / "folder"
    folder.mkdir()
    for _ in range(2):
        held = claim(folder)
        with pytest.raises(BlockingIOError):
            claim(folder)
        held.close()
    assert list(tmp_path.iterdir()) == [folder]


def test_without_locks_a_writer_that_is_gone_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os, psutil; p = psutil.Process(); print(p.pid, p.create_time())"
    gone = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    mine = f"{os.getpid()} 1.0"  # another process that had this one's number
    without_locks(monkeypatch, errno.ENOSYS)
    folder, note = tmp_path / "folder", tmp_path / "folder.lock"
    folder.mkdir()
    for left in (f"{gone} {socket.gethostname()}\n", f"{mine} {socket.gethostname()}\n", "1 1.0 elsewhere\n", ""):
        note.write_text(left)
        claim(folder).close()
        assert not note.exists()


@pytest.mark.parametrize("number", NO_LOCKS)
def test_keep_last_holds_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    without_locks(monkeypatch, number)
    for step in 10, 20, 30:
        partial = files.begin(tmp_path, step)
        (partial / "state.json").write_text("{}")
        write_manifest(partial, {"state.json": describe(partial / "state.json")})
        files.commit(partial)
    files.hold(tmp_path / "step-00000010").close()
    assert files.remove_old(tmp_path, 30, 2, 0) == []
    assert files.steps_in(tmp_path) == [20, 30]


def test_why_an_old_checkpoint_stays_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in 10, 20:
        partial = files.begin(tmp_path, step)
        write_manifest(partial, {})
        files.commit(partial)
    held = files.hold(tmp_path / "step-00000010")
    assert files.remove_old(tmp_path, 20, 1, 0) == [f"{tmp_path}/step-00000010 is not removed yet: it is being read"]
    held.close()

    def refuse(path: Path, target: Path) -> Path:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "rename", refuse)
    assert "cannot be removed (Operation not permitted): remove it by hand" in files.remove_old(tmp_path, 20, 1, 0)[0]
