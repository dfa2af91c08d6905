"""What a run runs on, in words and numbers for its log: processor, memory, versions, the project's commit."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from megatron_iberis import __version__
from megatron_iberis.parallel.node import cores_of_this_node

PACKAGES = ("torch", "deepspeed", "megatron-core")
_CPU_INFO = Path("/proc/cpuinfo")


def machine_facts() -> dict[str, str | int | float]:
    """Of this node: processor, cores, memory_bytes, GPU and its memory where there is one, versions, commit."""
    facts: dict[str, str | int | float] = {
        "processor": _processor(),
        "cores": cores_of_this_node(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "megatron_iberis": __version__,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        facts |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory}
        facts |= {"gpus_of_node": torch.cuda.device_count()}
    for name in PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts | ({"commit": commit} if (commit := project_commit()) else {})


@cache
def project_commit() -> str:
    """The commit of this project's sources, "-dirty" behind it where files were changed; empty if that can't be told.

    Nothing is asked where the package is installed without its repository: another one may lie around it.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()


def _processor() -> str:
    """The CPU's name as the system tells it, or its architecture."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine() or os.name
