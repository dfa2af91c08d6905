"""What to say when a disk refuses, and how to find out before hours of work whose result it is to hold."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

from megatron_iberis.errors import InputError


def is_full(error: OSError) -> bool:
    """Whether it was for want of room on a disk: the disk's, the user's (a quota), or a file's."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explain(
    error: BaseException, path: str | os.PathLike[str], when_full: str = "free space or choose another folder"
) -> str:
    """Why `path` cannot be written, and what to do, in one sentence. when_full: what to do about a full disk."""
    if wrapped := re.search(r"\(os error (\d+)\)", str(error)):  # by safetensors, which leaves only the text
        error = OSError(int(wrapped[1]), os.strerror(int(wrapped[1])))
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        free = shutil.disk_usage(_nearest(Path(path))).free / 2**30
        return f"cannot write {path}: the disk is full ({free:.1f} GiB free): {when_full}."
    if number == errno.EDQUOT:
        return f"cannot write {path}: the quota on its disk is used up: {when_full}."
    what = getattr(error, "strerror", None) or str(error)
    if isinstance(error, OSError) and is_full(error):
        return f"cannot write {path} ({what}): {when_full}."
    return f"cannot write {path} ({what}): check the path and its rights, or choose another."


def check_writable(path: str | os.PathLike[str], folder: bool = False) -> None:
    """InputError if `path` (a file, or a folder of files) cannot be written, links followed. Leaves nothing behind.

    A file is written in the folder, or in the one above that is there, as far as there is one.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and target.is_dir() != folder:
            raise InputError(f"{path} is a {'file' if folder else 'folder'}: choose another name.")
        place = target if folder and target.exists() else _nearest(target.parent)
        if not place.is_dir():
            raise InputError(f"{place} is a file, so {path} cannot be written: choose another path.")
        longest = os.pathconf(place, "PC_NAME_MAX")
        if any(len(os.fsencode(part)) > longest for part in target.relative_to(place).parts):
            raise InputError(f"{path} is too long for a name: choose one of at most {longest} bytes.")
        with tempfile.NamedTemporaryFile(dir=place, prefix=".writable-") as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        raise InputError(explain(error, path)) from None


def check_new(path: str | os.PathLike[str]) -> None:
    """InputError if a folder cannot be made at `path`, or something is there already. Leaves nothing behind."""
    if os.path.lexists(path):
        raise InputError(f"{path} is there already: name a folder that is not.")
    check_writable(path, folder=True)


def _nearest(path: Path) -> Path:
    """`path`, or the nearest above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
