"""What this process's main thread is doing: told by the training loop, read by the watchdog."""

from __future__ import annotations

import time


class Heartbeat:
    """The last sign of life: `phase` of `step` (from 1), at the monotonic time `at`; `beats` counts them."""

    def __init__(self) -> None:
        self.step, self.phase, self.beats, self.at = 0, "starting", 0, time.monotonic()

    def beat(self, phase: str | None = None, step: int | None = None) -> None:
        """The main thread has got somewhere: to another phase or step, or on within the same."""
        self.step = self.step if step is None else step
        self.phase = self.phase if phase is None else phase
        self.beats += 1
        self.at = time.monotonic()

    def touch(self) -> None:
        """Something that the main thread waits for has got on: no other phase or step, nor counted as one."""
        self.at = time.monotonic()

    def idle(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self.at
