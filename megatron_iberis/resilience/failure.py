"""How a run ends early, told apart without importing torch."""

from __future__ import annotations


class RunFailedError(RuntimeError):
    """The run can't go on, for a reason that is no fault of its input: one sentence, exit code 1."""
