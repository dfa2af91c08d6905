"""Runs the stages of a plan, shows where it is and what each took; gives a command again that died."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from examples.speedrun.plan import Plan, Stage
from examples.speedrun.record import Record
from megatron_iberis.command import INTERRUPTED, USAGE_ERROR
from megatron_iberis.errors import InputError
from megatron_iberis.launcher import environment
from megatron_iberis.storage.locks import Lock, claim

_FINAL = {USAGE_ERROR, INTERRUPTED, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
"""Exit codes after which a command is not given again: it was given wrongly, or asked to end."""


class Speedrun:
    """stages: those to run, in order; again: done or not. retries: of a command that died."""

    def __init__(self, plan: Plan, stages: Sequence[Stage], again: bool = False, retries: int = 2) -> None:
        self._plan, self._stages, self._again, self._retries = plan, stages, again, retries
        self._console = Console(width=None if sys.stdout.isatty() else 80, highlight=False)
        plan.folder.mkdir(parents=True, exist_ok=True)
        self._record = Record(plan)

    def run(self) -> int:
        """Returns the exit code: 0, or that of the command that failed. InputError if the plan's folder is in use."""
        try:
            held = claim(self._plan.folder)
        except BlockingIOError:
            raise InputError(
                f"a speedrun, or a command that one started, is still running in {self._plan.folder}: wait for its "
                "end, or end it."
            ) from None
        try:
            return self._run(held)
        finally:
            held.close()

    def _run(self, held: Lock) -> int:
        anew = self._again
        for number, stage in enumerate(self._stages):
            if not anew and self._record.finished(stage):
                continue
            if anew:  # asked for, or what it is made of is new
                self._record.forget(stage)
            self._head(number)
            code = self._run_stage(stage, held)
            if code:
                said = "the same command goes on from here." if code in _FINAL else f"it ended with {code}."
                self._console.print(f"{stage.name} is not done: {said}", style="red", markup=False)
                return code
            anew = True
        self._console.print(self._summary())
        return 0

    def _run_stage(self, stage: Stage, held: Lock) -> int:
        """Gives its commands from the first that is not done; returns 0 or an exit code."""
        done, failures = self._record.done(stage), 0
        while done < len(stage.commands):
            started = time.monotonic()
            try:
                code = self._give(stage.commands[done], held)
            finally:
                self._record.add(stage, done, time.monotonic() - started)
            if code == 0:
                done, failures = done + 1, 0
                self._record.add(stage, done, 0.0)
                continue
            failures += 1
            if code in _FINAL or failures > self._retries:
                return code
            self._console.print(f"\nit ended with {code}: given again, to go on ({failures} of {self._retries})")
        return 0

    def _give(self, words: Sequence[str], held: Lock) -> int:
        """Shows a command and runs it with this Python and its scripts; returns its exit code.

        It has the lock as well: should this program be killed, nobody else begins while the command goes on.
        """
        self._console.print(Text(f"\n$ {shlex.join(words)}", style="bold"), soft_wrap=True)
        command = [sys.executable if words[0] == "python" else words[0], *words[1:]]
        try:
            process = subprocess.Popen(command, env=environment(), pass_fds=(held.descriptor,))
        except FileNotFoundError:
            raise InputError(f"there is no command {words[0]}: install it, or change the plan.") from None
        try:
            return process.wait()
        except KeyboardInterrupt:  # which the command has got, too
            process.wait()
            raise
        except SystemExit:  # SIGTERM: it is to end in order as well
            process.terminate()
            process.wait()
            raise

    def _head(self, number: int) -> None:
        stage, left = self._stages[number], self._stages[number + 1 :]
        title = f"{number + 1} of {len(self._stages)}: {stage.name}"
        self._console.print()
        self._console.print(Rule(Text(title, style="bold"), align="left"))
        took = [
            f"{each.name} {duration(self._record.seconds(each))}" if self._record.seconds(each) else each.name
            for each in self._stages[:number]
        ]
        for label, names in (("", [stage.about]), ("done: ", took), ("left: ", [each.name for each in left])):
            if any(names):
                self._console.print(Text(label + ", ".join(names), style="dim"))

    def _summary(self) -> Table:
        """A line a stage: what it took."""
        table = Table(title="\nAll stages are done", title_justify="left", box=None, pad_edge=False)
        table.add_column("stage", no_wrap=True, min_width=max(8, *(len(stage.name) for stage in self._stages)))
        table.add_column("took", no_wrap=True, min_width=11, justify="right")
        table.add_column("", no_wrap=True, overflow="ellipsis")
        total = 0.0
        for stage in self._stages:
            seconds = self._record.seconds(stage)
            total += seconds
            table.add_row(stage.name, duration(seconds) if seconds else "-", Text(stage.about, style="dim"))
        table.add_row("together", duration(total), "")
        return table


def duration(seconds: float) -> str:
    """ "45 s", "3 min 05 s", "2 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
