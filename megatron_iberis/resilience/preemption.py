"""Stopping between two steps: a machine that is taken away (SIGTERM), Ctrl-C, a terminal or launcher that is gone.

* The signal reaches the ranks at different times, or one of them alone. So a rank only makes a note here;
  `Engine.step` lets the ranks agree, in the reduction that it does anyway.
* `kill` of the `deepspeed` command ends that process alone: its child, deepspeed.launcher.launch, which started the
  ranks, lives on and tells them nothing. So a rank also looks whether the processes above it are still there.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

import psutil

LAUNCHER = "deepspeed.launcher.launch"


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ECHO = 1.0
"""Seconds within which a second SIGINT is the same Ctrl-C: the terminal sends it to all, torchrun passes it on."""


class StopRequest:
    """While in its `with` block, SIGTERM, Ctrl-C and a lost terminal don't end the process: `asked()` tells of them.

    A second Ctrl-C ends it at once. Signals that are ignored stay ignored (nohup). Main thread only.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._interrupted = 0.0

    def __enter__(self) -> StopRequest:
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def asked(self) -> bool:
        """Whether this rank knows of a reason to stop."""
        return self._signalled or processes_above() != ABOVE

    def _note(self, number: int, frame: Any) -> None:
        self._signalled = True
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if not self._interrupted:
            self._interrupted = now
            if os.environ.get("RANK", "0") == "0":
                with suppress(OSError):  # print() may be what was interrupted
                    os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again ends the run at once\n")
        elif now - self._interrupted > ECHO:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)


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
