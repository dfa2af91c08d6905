"""How a run ends early, told apart and told once, without importing torch."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from megatron_iberis.parallel.node import ranks_on_this_node

LINGER = 3.0
"""Seconds that a rank which has said what is wrong lives on, for those of its node that find the same later."""
_said: set[str] = set()


class RunFailedError(RuntimeError):
    """The run can't go on, for a reason that is no fault of its input: one sentence, exit code 1."""


def mark_said(sentence: str) -> None:
    """Another rank says it: this process does not."""
    _said.add(sentence)


def say(sentence: str) -> None:
    """Says on stderr what is wrong with the input, if this process has not said so yet."""
    if sentence not in _said:
        _said.add(sentence)
        print(f"error: {sentence}", file=sys.stderr, flush=True)


def say_once(sentence: str) -> None:
    """The same, by one of the ranks of a node that find it. Main thread only, of a process that is about to end.

    The ranks may not know of each other yet. So the first holds a lock while it speaks and for a time after, and the
    others, which are silent, wait for its end.
    """
    if sentence in _said or ranks_on_this_node() == 1:
        return say(sentence)
    key = hashlib.sha256(sentence.encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"iberis-{os.getuid()}-{os.getppid()}-{key}"  # one a launcher
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        atexit.register(path.unlink, missing_ok=True)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        pass  # nowhere to write, or no locks: better said twice than not at all
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends by itself, and removes the file
    say(sentence)
    time.sleep(LINGER)
