"""Kills a training run again and again, starts it again each time, and shows that nothing was lost.

    python benchmarks/chaos.py [--kills 50] [--seed 0] [--folder F]

* A run of two processes is started by the `deepspeed` command on the CPU. A rank, the launcher above the ranks or
  the command itself gets SIGKILL: while the run starts, trains or saves, at a random report. Then the same command
  starts it again.
* After each kill every checkpoint under a final name is read through and compared with its manifest.
* At the end weights, optimizer state and random state must equal those of an undisturbed run, bit for bit.

Prints a tally by kind of kill; exit code 1 when anything was lost. Ends only processes that it has started. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import psutil

from megatron_iberis.checkpoint import files, verify
from megatron_iberis.launcher import deepspeed_command, environment

ROOT = Path(__file__).parents[1]
VICTIMS = ("rank 0", "rank 1", "launcher", "command")
MOMENTS = ("training", "saving", "starting")
STEPS_A_KILL, SAVE_EVERY = 20, 4
PATIENCE = 180.0
"""Seconds for what must happen, on a busy machine too: a start, the end of all processes after a kill."""
SETTINGS = {
    "model.depth": "2",
    "model.width": "64",
    "model.heads": "4",
    "model.vocab_size": "1024",
    "model.sequence_length": "32",
    "train.batch_tokens": "256",
    "train.device_batch": "2",
    "evaluation.every": "0",
    "evaluation.sample_every": "0",
    "train.log_every": "1000000",
    "checkpoint.every": str(SAVE_EVERY),
    "checkpoint.keep_last": "3",
    "data.val": "",
}


class LostError(Exception):
    """A promise was broken."""


@dataclass
class Tally:
    """What was done, and what was seen."""

    kills: Counter[str] = field(default_factory=Counter)
    during_a_save: int = 0
    ended_by_themselves: int = 0
    verified: int = 0

    def show(self) -> str:
        rows = [f"{kind:<24}{count:>4}" for kind, count in sorted(self.kills.items())]
        return "\n".join(
            [
                f"{'kill':<24}{'of them':>7}",
                *rows,
                f"{'all':<24}{self.kills.total():>4}",
                f"{self.during_a_save} of them while a checkpoint was being written",
                f"{self.ended_by_themselves} times all other processes ended without being killed too",
                f"{self.verified} times a checkpoint was read through: none was damaged",
            ]
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how often (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder, removed afterwards)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the run in hand is ended too
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        tally = Tally()
        try:
            chaos(folder, arguments.kills, arguments.seed, tally)
        except LostError as loss:
            print(f"{tally.show()}\nLOST: {loss}")
            return 1
        print(f"{tally.show()}\nthe final weights, optimizer state and random state equal the undisturbed run's")
    return 0


def chaos(folder: Path, kills: int, seed: int, tally: Tally) -> None:
    """One undisturbed run and one that is killed so often. Raises LostError."""
    draw = random.Random(seed)
    words = [*make_data(folder), "--train.steps", str(kills * STEPS_A_KILL)]
    whole = Launched(folder / "undisturbed", words)
    finish(whole)
    kinds: list[tuple[str, str]] = []
    while len(kinds) < kills:  # each kind as often as the others, in any order
        kinds += draw.sample(list(product(VICTIMS, MOMENTS)), len(VICTIMS) * len(MOMENTS))
    for number, (victim, report) in enumerate(kinds[:kills]):
        run = Launched(folder / "disturbed", words)
        try:
            wait_for(run, report, round((number + draw.random()) * 0.9 * STEPS_A_KILL), draw)
            saving = any(run.checkpoints.glob(f"{files.PREFIX}*{files.PARTIAL}"))
            victim = run.kill(victim)
            tally.ended_by_themselves += run.others_end()
        finally:
            run.end()
        tally.kills[f"{victim}, {report}"] += 1
        tally.during_a_save += saving
        tally.verified += check_all(run.checkpoints)
        print(f"{number + 1}/{kills} killed: {victim} while {report}, step {run.logged_step()}", flush=True)
    last = Launched(folder / "disturbed", words)
    finish(last)
    compare(whole.checkpoints, last.checkpoints)


def make_data(folder: Path) -> list[str]:
    """A tokenizer and a token file of the sample text; returns the settings of a small run on them."""
    text, tokenizer, prefix = folder / "text.jsonl", folder / "tokenizer", folder / "corpus"
    for command in (
        ["-m", "examples.sample", "--output", str(text)],
        ["data_tools/train_tokenizer.py", "--vocab-size", "1024", "--input", str(text), "--output", str(tokenizer)],
        [
            "data_tools/preprocess.py",
            "--input",
            str(text),
            "--tokenizer",
            str(tokenizer),
            "--output-prefix",
            str(prefix),
        ],
    ):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    settings = {**SETTINGS, "data.train": f"{prefix}_text_document", "data.tokenizer": str(tokenizer)}
    return [word for key, value in settings.items() for word in (f"--{key}", value)]


class Launched:
    """A run of two ranks in a session of its own, resumed in its folder if there is something to resume."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.checkpoints, self.log, self.said = folder / "checkpoints", folder / "log.jsonl", folder / "said.txt"
        folder.mkdir(parents=True, exist_ok=True)
        self.log_before = self._log_identity()
        with self.said.open("w", encoding="utf-8") as said:
            self.command = subprocess.Popen(
                deepspeed_command("examples/demo.sh", [*words, "--run.folder", str(folder), "--run.resume"], 2),
                cwd=ROOT,
                env={**environment(), "OMP_NUM_THREADS": "1"},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def kill(self, victim: str) -> str:
        """Kills one process, the `deepspeed` command when the victim is not there yet; returns which."""
        pid = None if victim == "command" else self._find(victim)
        with suppress(ProcessLookupError):
            os.kill(pid or self.command.pid, signal.SIGKILL)
        return victim if pid else "command"

    def others_end(self) -> bool:
        """Whether all processes of the run end by themselves."""
        return waited(lambda: self.command.poll() is not None and not self._members(), 30.0)

    def end(self) -> None:
        """Kills what is left of the run."""
        while members := self._members():
            for process in members:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.05)
        self.command.wait()

    def logged_step(self) -> int:
        """Steps done, as the log of this start says; -1 before it says anything."""
        if self._log_identity() in (None, self.log_before):
            return -1
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            lines = file.read().splitlines(keepends=True)
        steps = [json.loads(line)["step"] for line in lines[-2:] if line.startswith(b"{") and line.endswith(b"}\n")]
        return max(steps, default=0)

    def _log_identity(self) -> int | None:
        return self.log.stat().st_ino if self.log.exists() else None

    def _members(self) -> list[psutil.Process]:
        """The living processes of the command's session."""
        found = []
        for pid in psutil.pids():
            with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
                if os.getsid(pid) == self.command.pid:
                    process = psutil.Process(pid)
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def _find(self, victim: str) -> int | None:
        for process in self._members():
            with suppress(psutil.NoSuchProcess):
                words = process.cmdline()
                launcher = "deepspeed.launcher.launch" in words
                rank = f"--local_rank={victim.removeprefix('rank ')}" in words and not launcher
                if (victim == "launcher" and launcher) or rank:
                    return process.pid
        return None


def wait_for(run: Launched, report: str, step: int, draw: random.Random) -> None:
    """Until the run starts, or does steps from `step` on, or saves; and then a random while."""
    if report == "starting":
        time.sleep(draw.uniform(0.0, 8.0))
        return

    def happened() -> bool:
        unfinished = run.checkpoints.glob(f"{files.PREFIX}*{files.PARTIAL}")
        return run.logged_step() >= max(1, step) and (report == "training" or any(unfinished))

    if not waited(lambda: happened() or run.command.poll() is not None, PATIENCE):
        raise LostError(f"no {report} at step {step} after {PATIENCE:.0f} s: {run.said.read_text()}")
    if run.command.poll() is not None:
        raise LostError(f"the run ended with {run.command.returncode} before it was killed: {run.said.read_text()}")
    time.sleep(draw.uniform(0.0, 0.02 if report == "saving" else 0.3))


def waited(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def finish(run: Launched) -> None:
    """Lets the run come to its end. Raises LostError when it fails."""
    try:
        if run.command.wait() != 0:
            raise LostError(f"the run ended with {run.command.returncode}: {run.said.read_text()}")
    finally:
        run.end()


def check_all(root: Path) -> int:
    """Reads every checkpoint under a final name; returns how many.

    Raises LostError when one is damaged, or `latest` names one that is not there.
    """
    steps = files.steps_in(root)
    for step in steps:
        problem = verify.damage(root / files.name_of(step))
        if problem:
            raise LostError(problem)
    latest = root / files.LATEST
    if latest.exists() and latest.read_text().strip() not in [files.name_of(step) for step in steps]:
        raise LostError(f"{latest} names {latest.read_text().strip()}, which is not there")
    return len(steps)


def compare(wanted: Path, found: Path) -> None:
    """Raises LostError when the newest checkpoints of two runs differ in a bit of a tensor."""
    check_all(wanted)
    check_all(found)
    newest = files.name_of(files.steps_in(wanted)[-1])
    for path in sorted((wanted / newest).glob("*.safetensors")):
        if path.read_bytes() != (found / newest / path.name).read_bytes():
            raise LostError(f"{found / newest / path.name} differs from the undisturbed run's")


if __name__ == "__main__":
    sys.exit(main())
