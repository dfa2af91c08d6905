"""Stopping between two steps: a machine that is taken away (SIGTERM), or a launcher that is gone.

* The signal reaches the ranks at different times, or one of them alone. So a rank only makes a note here;
  `Engine.step` lets the ranks agree, in the reduction that it does anyway.
* `kill` of the `deepspeed` command ends that process alone: its child, deepspeed.launcher.launch, which started the
  ranks, lives on and tells them nothing. So a rank also looks whether the processes above it are still there.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import psutil

LAUNCHER = "deepspeed.launcher.launch"


class StopRequest:
    """While in its `with` block, SIGTERM does not end the process: `asked()` tells of it. Main thread only."""

    def __init__(self) -> None:
        self._signalled = False

    def __enter__(self) -> StopRequest:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def asked(self) -> bool:
        """Whether this rank knows of a reason to stop."""
        return self._signalled or processes_above() != ABOVE

    def _note(self, *_: Any) -> None:
        self._signalled = True


def processes_above() -> tuple[int, ...]:
    """The processes whose end is to end this rank: what launched it and, with DeepSpeed, what launched that.

    Empty for a process that no launcher started: it may outlive its shell.
    """
    if "RANK" not in os.environ:
        return ()
    parent = os.getppid()
    with suppress(psutil.Error):
        process = psutil.Process(parent)
        if LAUNCHER in process.cmdline():
            return parent, process.ppid()
    return (parent,)


ABOVE = processes_above()
"""As they are when this module is imported, which is to be early: who ends while a run starts is missed, too."""
