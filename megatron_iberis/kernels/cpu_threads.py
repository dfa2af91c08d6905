"""How many threads this process should run: the CPUs that it may use, within its control groups' quota.

A container limited to two CPUs of a machine with 64 sees 64: as many threads would each be stopped most of the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch


@cache
def default_threads() -> int:
    """`usable_cpus` of this process, looked up once."""
    return usable_cpus()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch's operations on a CPU take so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs of this process's affinity, but no more than its quota allows, rounded down; at least 1.

    root: where proc/ and sys/ are. Quotas of control groups v1 and v2 count, and those of the groups around them.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        allowed = os.cpu_count() or 1
    return max(1, int(min([float(allowed), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """In CPUs, of each group that has one."""
    for group in _groups(root):
        try:
            if (group / "cpu.max").exists():  # v2: "200000 100000", or "max 100000"
                quota, period = (group / "cpu.max").read_text().split()
            else:  # v1, where -1 is no quota
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # no limit that we know of
            continue


def _groups(root: Path) -> Iterator[Path]:
    """The control groups of this process that can limit its CPUs, from its own outwards.

    In a container a path may be the host's, which is not to be seen there: then the outermost folder is its group.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/path" for v2, "4:cpu,cpuacct:/path" for v1
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [controllers, "cpu"] if controllers else ["", "unified"]
        for mount in dict.fromkeys(mounts):
            folder = root / "sys/fs/cgroup" / mount
            parts = Path(name).parts[1:]
            yield from (folder.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))
