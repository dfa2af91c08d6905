"""How a run ends early, told apart and told once, without importing torch."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from megatron_iberis.parallel.node import ranks_on_this_node

LINGER = 3.0
"""Seconds that a rank which has said what is wrong lives on, for those of its node that find the same later."""
_said: dict[str, int] = {}


class RunFailedError(RuntimeError):
    """The run can't go on, for a reason that is no fault of its input: one sentence, exit code 1."""


def say_once(sentence: str) -> bool:
    """Says on stderr what is wrong with the input; of the ranks of a node that find the same, one does.

    It holds a lock as long as it lives, since the ranks may not know of each other yet. The others return when it has
    ended. Returns whether this rank has just said it. Main thread only, of a process that is about to end.
    """
    if sentence in _said:
        return False
    if ranks_on_this_node() > 1:
        key = hashlib.sha256(sentence.encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"iberis-{os.getuid()}-{os.getppid()}-{key}"  # one a launcher
        try:
            _said[sentence] = lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            atexit.register(path.unlink, missing_ok=True)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return False
        except OSError:
            pass  # nowhere to write or no locks: better said twice than not at all
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends by itself, and removes the file
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    _said.setdefault(sentence, -1)
    return True
