"""`InputError`: a user's mistake, told apart from every other exception; and what is said of it."""

from __future__ import annotations

import errno
import os


class InputError(ValueError):
    """Something given by the user is wrong: one sentence that says what and how to mend it.

    A command prints it without a traceback and ends with exit code 2 (`command.py`). Any other
    exception, a ValueError of a library's among them, keeps its traceback and ends with 1.
    """


_FULL_DISK = "make room, or write to another disk"
_FIXES = {
    errno.EACCES: "give yourself the right to it, or name another",
    errno.EPERM: "give yourself the right to it, or name another",
    errno.EROFS: "name a place on a disk that can be written to",
    errno.ENOENT: "check the name",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "check the name",
    errno.ENOSPC: _FULL_DISK,
    errno.EDQUOT: _FULL_DISK,
    errno.EFBIG: _FULL_DISK,
}
_WITHOUT_A_NAME = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sentence(error: BaseException | None) -> str | None:
    """What to tell a user of an exception that the input is at fault for; None for one that keeps its traceback.

    The input is at fault for an InputError, and for an OSError about a file (its name, the reason, the fix) or a full
    disk; not for one about a connection, say.
    """
    if isinstance(error, InputError):
        return str(error)
    if not isinstance(error, OSError):
        return None
    named = isinstance(error.filename, str | bytes | os.PathLike)
    if not error.strerror or not (named or error.errno in _WITHOUT_A_NAME):
        return None
    what = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else error.strerror
    fix = _FIXES.get(error.errno or 0)
    return f"{what}: {fix}." if fix else f"{what}."
