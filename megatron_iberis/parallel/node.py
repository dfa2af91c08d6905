"""This machine's share of a run: how many ranks it has, and how many cores for them. Imports nothing heavy."""

from __future__ import annotations

import os


def ranks_on_this_node() -> int:
    """As torchrun (LOCAL_WORLD_SIZE) or DeepSpeed's launcher (LOCAL_SIZE) says it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)


def cores_of_this_node() -> int:
    """Cores that the launcher may use: a rank bound to some of them (numactl) would see only its own."""
    try:
        return len(os.sched_getaffinity(os.getppid()))
    except (AttributeError, OSError):  # not on Linux, or the launcher is gone
        return os.cpu_count() or 1
