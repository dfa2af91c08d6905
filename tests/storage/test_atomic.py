"""Whatever a file system refuses or does not have: a file is whole or not there, and nothing is left beside it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from megatron_iberis.storage.atomic import (
    atomic_file,
    new_folder,
    rename_together,
    replace_folder,
    sync,
    write_atomic,
    write_together,
)


def refuse_sync(monkeypatch: pytest.MonkeyPatch, number: int, folders: bool) -> None:
    """os.fsync of folders, or else of files, answers with the error."""
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}") == folders:
            raise OSError(number, os.strerror(number))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail() -> None:
        with atomic_file(path) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_sync(monkeypatch, number, folders=True)
    write_atomic(tmp_path / "file", b"content")
    (tmp_path / "new" / "inner").mkdir(parents=True)
    replace_folder(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "final" / "inner").is_dir()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ENOSPC])
def test_a_file_that_cannot_be_synced_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_sync(monkeypatch, number, folders=False)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomic(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_disk_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_sync(monkeypatch, errno.EIO, folders=True)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync(tmp_path)


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "file")
    write_atomic(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "file").read_bytes() == b"content"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)
    write_atomic(tmp_path / "pipe", b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_the_longest_name_that_the_file_system_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("あ" * 85)  # 255 bytes
    write_atomic(path, b"content")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_files_that_are_one_thing_are_never_old_beside_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_together(tmp_path, {"model": b"old", "manifest": b"of old"})
    (tmp_path / "other").touch()
    replace, seen = os.replace, []

    def look(source: Path, target: Path) -> None:
        seen.append({path.name for path in tmp_path.iterdir()} & {"model", "manifest", "other"})
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_together(tmp_path, {"model": b"new", "manifest": b"of new"}, remove=["other"])
    assert seen == [{"model"}, {"model"}], "the manifest comes last, and the old one went first"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model": b"new", "manifest": b"of new"}


def test_files_that_are_one_thing_stay_as_they_were_when_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_together(tmp_path, {"model": b"old", "manifest": b"of old"})
    refuse_sync(monkeypatch, errno.ENOSPC, folders=False)
    with pytest.raises(OSError, match="No space"):
        write_together(tmp_path, {"model": b"new", "manifest": b"of new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model": b"old", "manifest": b"of old"}


def test_renaming_that_was_killed_can_be_completed(tmp_path: Path) -> None:
    for name in "a.new", "b.new":
        (tmp_path / name).write_text(name)
    moves = [(tmp_path / "a.new", tmp_path / "a"), (tmp_path / "b.new", tmp_path / "b")]
    rename_together(moves[:1], [])
    rename_together(moves, [])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "a.new", "b": "b.new"}


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "new.partial", "final":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "new.partial":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        replace_folder(tmp_path / "new.partial", tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "final"
    monkeypatch.undo()
    replace_folder(tmp_path / "new.partial", tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "new.partial"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_a_new_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "folder"

    def fill(fail: bool) -> None:
        with new_folder(path) as partial:
            (partial / "inner").mkdir()
            (partial / "inner" / "file").write_bytes(b"content")
            assert not path.exists()
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(True)
    assert list(tmp_path.iterdir()) == [], "the folders above it were made for it alone"
    (tmp_path / "some").mkdir()
    fill(False)
    assert (path / "inner" / "file").read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


def test_a_new_folder_replaces_nothing(tmp_path: Path) -> None:
    """Not even what came to be there while it was filled."""
    path = tmp_path / "folder"

    def fill() -> None:
        with new_folder(path) as partial:
            (partial / "file").write_bytes(b"new")
            path.mkdir()

    with pytest.raises(FileExistsError, match="folder"):
        fill()
    assert list(path.iterdir()) == []
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_new_folder_where_folders_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_sync(monkeypatch, number, folders=True)
    with new_folder(tmp_path / "folder") as partial:
        (partial / "file").write_bytes(b"new")
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"
