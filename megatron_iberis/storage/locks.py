"""One writer at a time. A lock ends with its process, however that ends.

Some file systems have no locks (Lustre without -o flock, NFS without a lock daemon). `lock` does nothing there.
`claim` leaves a note beside the folder instead, which tells two processes of one machine apart, not those of two.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

import psutil

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}


class Lock:
    """Held until `close`. locked: False on a file system without locks.

    descriptor: a process that inherits it holds the lock as well, to its own end.
    """

    def __init__(self, descriptor: int, locked: bool) -> None:
        self.descriptor, self.locked = descriptor, locked
        self._note: Path | None = None

    def close(self) -> None:
        """Lets go of what was locked."""
        if self._note:
            self._note.unlink(missing_ok=True)
        os.close(self.descriptor)


def lock(path: Path, shared: bool = False, wait: bool = False) -> Lock:
    """Locks a file or folder that is there, for this process alone or `shared` with others that read it.

    BlockingIOError while another process holds it, unless told to `wait`.
    """
    # NFS wants a file to be open for writing where nobody else may have it
    descriptor = os.open(path, os.O_RDONLY if shared or path.is_dir() else os.O_RDWR)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return Lock(descriptor, False)
        os.close(descriptor)
        raise
    return Lock(descriptor, True)


def claim(folder: Path) -> Lock:
    """Makes this process the only one that writes into a folder that is there; BlockingIOError if another one does.

    Where there are no locks, FOLDER.lock names machine, process and when it began.
    """
    held = lock(folder)
    if held.locked:
        return held
    note = folder.with_name(folder.name + ".lock")
    for _ in range(2):
        try:
            with note.open("x") as file:
                file.write(_signature(psutil.Process()))
        except FileExistsError:
            if _is_alive(note):
                break
            note.unlink(missing_ok=True)
        else:
            held._note = note
            return held
    held.close()
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(folder))


def _signature(process: psutil.Process) -> str:
    return f"{process.pid} {process.create_time()} {socket.gethostname()}\n"


def _is_alive(note: Path) -> bool:
    """Whether a process of this machine wrote the note and is still there. Of other machines nothing is known."""
    try:
        text = note.read_text()
        return _signature(psutil.Process(int(text.split()[0]))) == text
    except (OSError, ValueError, IndexError, psutil.Error):
        return False
