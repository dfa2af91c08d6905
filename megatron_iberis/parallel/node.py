"""A launcher's environment: how many ranks, how many of them here, how many cores. Imports nothing heavy."""

from __future__ import annotations

import os

from megatron_iberis.errors import InputError


def launched_processes() -> int:
    """The number of processes that a launcher has started for this run; 1 without a launcher.

    Raises InputError when the environment is half of what a launcher sets, as in a pod or below another run's rank.
    """
    if "RANK" not in os.environ:
        return 1
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        if not os.environ.get(name):
            raise InputError(
                f"RANK is set in the environment, as by a launcher, and {name} is not: start with deepspeed or "
                "torchrun, or take RANK out of the environment (env -u RANK ...)."
            )
    for name in ("RANK", "MASTER_PORT", "LOCAL_RANK"):
        _number(name, "0")
    return int(_number("WORLD_SIZE", "1"))


def _number(name: str, otherwise: str) -> str:
    value = os.environ.get(name, otherwise)
    if not value.isdecimal():
        raise InputError(f"{name} in the environment is {value!r}: it must be a whole number, as launchers set it.")
    return value


def ranks_on_this_node() -> int:
    """As torchrun (LOCAL_WORLD_SIZE) or DeepSpeed's launcher (LOCAL_SIZE) says it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)


def cores_of_this_node() -> int:
    """Cores that the launcher may use: a rank bound to some of them (numactl) would see only its own."""
    try:
        return len(os.sched_getaffinity(os.getppid()))
    except (AttributeError, OSError):  # not on Linux, or the launcher is gone
        return os.cpu_count() or 1
