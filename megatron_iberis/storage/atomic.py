"""Files that are whole or not there, and on the disk when a call returns: written beside, synced, renamed.

* Links are followed: what a link names is replaced, and the link stays.
* Some file systems cannot sync a folder and answer EINVAL, or the like (shared folders of virtual machines, AFS, old
  SMB clients). There is nothing to sync there then: that is no error. A file that cannot be synced is one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

_NO_FOLDER_SYNC = {
    errno.EINVAL,
    errno.EBADF,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EISDIR,
    errno.EACCES,
}


def sync(path: Path) -> None:
    """Has the file, or a folder's list of names, on the disk when it returns."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC or not path.is_dir():
            raise


def sync_stream(stream: IO[bytes]) -> None:
    """Has all that was written to the stream on the disk when it returns."""
    stream.flush()
    os.fsync(stream.fileno())


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the name `path` at the end of the block; nothing is left when the block raises."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a device, a pipe: it is written to, never replaced
        with path.open("wb") as stream:
            yield stream
        return
    temporary = _beside(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
            sync_stream(stream)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Writes `path` whole or not at all."""
    with atomic_file(path) as stream:
        stream.write(content)


def write_json(path: Path, value: Any) -> None:
    """Writes `path` whole or not at all."""
    write_atomic(path, json_line(value, indent=2))


def json_line(value: Any, indent: int | None = None) -> bytes:
    """As UTF-8; what is no Unicode, in the name of a file, is escaped."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode(errors="backslashreplace") + b"\n"


def write_together(folder: Path, contents: Mapping[str, bytes], remove: Iterable[str] = ()) -> None:
    """Writes files that are one thing, by name; the last is the one that is looked for, so it is never there alone.

    remove: names in the folder that have no place beside them.
    """
    temporary = {name: _beside(folder / name) for name in contents}
    try:
        for name, content in contents.items():
            with temporary[name].open("xb") as stream:
                stream.write(content)
                sync_stream(stream)
        moves = [(temporary[name], folder / name) for name in contents]
        rename_together(moves, [moves[-1][1], *(folder / name for name in remove)])
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def rename_together(moves: Iterable[tuple[Path, Path]], remove: Iterable[Path]) -> None:
    """Gives files that are one thing, and synced, their final names, in this order, all in one folder.

    remove: what goes first, so that nobody ever pairs something old with something new. A file that is not there has
    got its name before: the call that was to do it was killed.
    """
    folders = set()
    for path in remove:
        path.unlink(missing_ok=True)
        folders.add(path.parent)
    for temporary, final in moves:
        if temporary.exists():
            os.replace(temporary, final)
        folders.add(final.parent)
    for folder in folders:
        sync(folder)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `path` at the end of the block, whole and on the disk.

    Nothing is left when the block raises. FileExistsError when something else has got that name meanwhile.
    """
    path = Path(os.path.realpath(path))
    missing = [parent for parent in path.parents if not parent.exists()]
    temporary = _beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for part in (*temporary.rglob("*"), temporary):
            sync(part)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            for parent in missing:
                parent.rmdir()
        raise
    sync(path.parent)


def replace_folder(new: Path, final: Path) -> None:
    """Gives the folder `new`, whose files are synced, the name `final`; what bore it is removed."""
    for folder in (new, *(path for path in new.rglob("*") if path.is_dir())):
        sync(folder)
    old = new.with_name(f"{new.stem}.replaced{new.suffix}")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    try:
        new.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name of its own in the folder of `path`, also where that name is nearly as long as a name may be."""
    return path.with_name(f"{path.name[:50]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
