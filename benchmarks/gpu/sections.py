"""The sections of the check, each run in a process of its own: one that fails or hangs takes nothing else along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
CPU_PATIENCE = 5
"""A trial on a CPU may take so many times the seconds: the machine may be busy."""


@dataclass(frozen=True)
class Section:
    """`function(scale, record, *arguments)`, written module:function, and the seconds that it may take."""

    function: str
    seconds: float
    arguments: tuple[str, ...] = ()


MACHINE = Section("machine:run", 120)
SECTIONS = {
    "golden": Section("golden:run", 70),
    "zero": Section("launched:zero", 140),
    "resume": Section("launched:resume", 60),
    "d20": Section("speed:run", 120, ("d20",)),
    "d12": Section("speed:run", 110, ("d12",)),
}


def run(section: Section, device: str, seconds: float) -> dict[str, Any]:
    """Runs a section for at most so many seconds.

    Returns what its record holds (record.py) with `seconds` and `error`: empty, or in one line what ended it, whose
    last words are `said`. `passed`: it came to its end, but for what is optional, and every check of it did pass.
    """
    with tempfile.TemporaryDirectory() as temporary:
        file, said = Path(temporary) / "record.json", Path(temporary) / "said"
        command = [sys.executable, "-m", "benchmarks.gpu.child", section.function, device, str(file)]
        started = time.monotonic()
        with said.open("wb") as output:
            process = subprocess.Popen(
                [*command, *section.arguments],
                cwd=ROOT,
                env=_environment(device),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end_with_all_below(process)
        result: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"checks": [], "figures": {}}
        lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
    doing = result.pop("doing", "starting")
    result["seconds"], result["error"] = time.monotonic() - started, ""
    if code is None:
        result["error"] = f"{doing}: not done in the {seconds:.0f} seconds of this section"
    elif code < 0:
        result["error"] = f"{doing}: ended by {signal.Signals(-code).name}"
    elif code:
        result["error"] = f"{doing}: {lines[-1] if lines else f'exit code {code}'}"
    if result["error"]:
        result["said"] = lines[-40:]
    optional = result.pop("optional", False)
    result["passed"] = (not result["error"] or optional) and all(check["passed"] for check in result["checks"])
    return result


def run_all(names: Iterable[str], device: str, deadline: float) -> Iterable[tuple[str, dict[str, Any]]]:
    """Runs sections one after the other; each ends at `deadline` (time.monotonic) at the latest."""
    for name in names:
        left = deadline - time.monotonic()
        if left < 1:
            missed = {"checks": [], "figures": {}, "seconds": 0.0, "passed": False, "error": "no time was left"}
            yield name, missed
        else:
            seconds = SECTIONS[name].seconds * (CPU_PATIENCE if device == "cpu" else 1)
            yield name, run(SECTIONS[name], device, min(seconds, left))


def _environment(device: str) -> dict[str, str]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return environment


def _end_with_all_below(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and what it has started, launchers and ranks."""
    below = []
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
    for each in below:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.kill()
    process.wait()
