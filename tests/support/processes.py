"""Runs started as a user starts them: the real launcher, the processes that it made, and that none of them stays."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from megatron_iberis.launcher import deepspeed_command, environment

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {**environment(), "OMP_NUM_THREADS": "1"}


def start(*command: str) -> subprocess.Popen[str]:
    """Starts a command as a user would, from the repository; what it says goes into one pipe."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class Launched:
    """examples/demo.sh under `deepspeed` with so many processes. None of them outlives its block."""

    def __init__(self, processes: int, words: list[str], script: str = "examples/demo.sh") -> None:
        self.command = deepspeed_command(script, words, processes)
        self.script, self.size = script, processes
        self.runner = start(*self.command)
        self.known: list[psutil.Process] = []

    def __enter__(self) -> Launched:
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self._below(), *self.known]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.runner.kill()
        self.runner.communicate()

    def launcher(self) -> psutil.Process:
        """The process between the command and the ranks."""
        return self.ranks()[0].parent()

    def ranks(self) -> list[psutil.Process]:
        """The ranks' processes, in their order, once all of them are there."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = {}
            for process in self._below():
                words = process.cmdline()
                local = next((word for word in words if word.startswith("--local_rank=")), None)
                if local and self.script in words:
                    found[int(local.partition("=")[2])] = process
                self.known += [process] * (process not in self.known)
            if len(found) == self.size:
                return [found[rank] for rank in range(self.size)]
            time.sleep(0.1)
        raise AssertionError(f"the ranks did not come: {self.runner.communicate(timeout=10)[0]}")

    def _below(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.runner.pid).children(recursive=True)
        return []

    def wait_for_steps(self, folder: Path, steps: int, seconds: float = 120) -> None:
        """Until the run's log tells of so many steps."""
        deadline = time.monotonic() + seconds
        log = folder / "log.jsonl"
        while not log.exists() or log.read_text(encoding="utf-8").count('"event": "step"') < steps:
            assert self.runner.poll() is None, self.wait()[1]
            assert time.monotonic() < deadline, f"{folder} did not come to step {steps}"
            time.sleep(0.05)

    def wait(self, seconds: float = 90) -> tuple[int, str]:
        """The exit code of the command, and what was said, once everybody who could say something has ended."""
        said, _ = self.runner.communicate(timeout=seconds)
        return self.runner.returncode, said

    def left(self, seconds: float = 10) -> list[psutil.Process]:
        """Those of the processes seen that are still there after so long, zombies included."""
        _, alive = psutil.wait_procs([p for p in self.known if p.pid != self.runner.pid], timeout=seconds)
        return alive
