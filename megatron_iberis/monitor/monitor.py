"""What a user sees of a training run: the console, log.jsonl and TensorBoard, each told the same events.

* Made on rank 0 only. Steps are shown as counts of steps done: the first step is step 1.
* None of them may end the run: one that fails (a full disk, say) is named once on the console, and left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from megatron_iberis.config import Recipe
from megatron_iberis.hardware.machine import machine_facts
from megatron_iberis.hardware.measure import memory_bytes
from megatron_iberis.hardware.peaks import Peak
from megatron_iberis.monitor.console import Console
from megatron_iberis.monitor.events import Event, Note, Start, Validation
from megatron_iberis.monitor.log import JsonlLog
from megatron_iberis.monitor.metrics import StepMetrics, Tracker
from megatron_iberis.run_folder import RunFolder

__all__ = ["Monitor", "StepMetrics"]


class Recorder(Protocol):
    """Something that is told the events of a run."""

    def tell(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Monitor:
    """Tells console, folder/log.jsonl and folder/tensorboard how a run goes. Its methods never raise an Exception.

    world: ranks of the run; first_step: steps that were done before (0: a new run); peak: of one rank, which with
    `world` is what MFU is counted against.
    """

    def __init__(self, folder: Path, recipe: Recipe, world: int, first_step: int, peak: Peak) -> None:
        self._folder, self._world, self._peak = folder, world, peak
        self._done = first_step
        self._tracker = Tracker(recipe, world, peak)
        self._console: Console | None = Console(recipe.train.steps, recipe.train.log_every)
        self._recorders: dict[str, Recorder] = {}

        def open_log() -> Recorder:
            log = JsonlLog(RunFolder(folder).log, first_step)
            self._tracker.resume(log.kept_losses, log.kept_skipped)
            return log

        def open_curves() -> Recorder:
            from megatron_iberis.monitor.tensorboard import TensorBoardWriter

            return TensorBoardWriter(RunFolder(folder).tensorboard, recipe, first_step)

        for name, make in (("log.jsonl", open_log), ("TensorBoard", open_curves)):
            self._guard(name, partial(self._open, name, make))

    def start(self, lines: list[str]) -> None:
        """The opening block: "name: value" lines about model, layout and data; the monitor adds its own.

        The log gets the same, and what the run runs on.
        """
        ranks = "" if self._world == 1 else f" x {self._world} ranks"
        own = [
            f"peak: {teraflops(self._peak.flops)} TFLOP/s{ranks} ({self._peak.name})",
            f"curves: tensorboard --logdir {RunFolder(self._folder).tensorboard}",
        ]
        self._show(lambda console: console.start([*lines, *own]))
        self._guard("log.jsonl", lambda: self._log_start(lines))

    def _log_start(self, lines: list[str]) -> None:
        pairs = (line.partition(":") for line in lines)
        machine: dict[str, str | int | float] = {"device": self._peak.name, "peak_flops": self._peak.flops}
        machine["ranks"] = self._world
        with contextlib.suppress(Exception):  # what can't be found out is left out
            machine |= machine_facts()
        if log := self._recorders.get("log.jsonl"):
            log.tell(Start(self._done, {name.strip(): value.strip() for name, _, value in pairs}, machine))

    def step(self, metrics: StepMetrics) -> None:
        """A step was done."""
        device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
        event = self._tracker.add(metrics, memory_bytes(device))
        self.tell(event)
        if event.loss_spike is not None:
            self.note(
                f"loss spike at step {event.step}: {event.loss:.4f} is {event.loss_spike:.0f} mean deviations above "
                "the losses before it"
            )

    def recent_seconds(self) -> list[float]:
        """How long the last steps took, at most 20, the first of this process left out."""
        return self._tracker.recent_seconds()

    def note(self, text: str) -> None:
        """Something that happened after the last step that was told of, in a line."""
        self.tell(Note(self._done, text))

    def tell(self, event: Event) -> None:
        """Tells console, log and curves of it."""
        self._done = event.step
        if isinstance(event, Validation):
            self._tracker.validated(event.seconds)
        self._each(lambda recorder: recorder.tell(event))

    def close(self) -> None:
        """Ends log and curves. What comes after is shown on the console only."""
        self._each(lambda recorder: recorder.close())
        self._recorders.clear()

    def _open(self, name: str, make: Callable[[], Recorder]) -> None:
        self._recorders[name] = make()

    def _each(self, action: Callable[[Recorder], None]) -> None:
        self._show(action)
        for name, recorder in list(self._recorders.items()):
            self._guard(name, partial(action, recorder))

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        """Does it; whatever goes wrong takes the recorder `name` out of the run, which is said once."""
        try:
            action()
        except Exception as error:
            self._recorders.pop(name, None)
            problem = f"warning: {name} can't be written any more, the run continues without it: {error}"
            self._show(lambda console: console.tell(Note(self._done, problem)))

    def _show(self, action: Callable[[Console], None]) -> None:
        """On the console, as long as there is one: nothing can be said about a standard output that is gone."""
        if self._console is not None:
            try:
                action(self._console)
            except Exception:
                self._console = None


def teraflops(flops: float) -> str:
    """FLOP/s in units of 1e12: "989", "0.41"."""
    return f"{flops / 1e12:.0f}" if flops >= 1e14 else f"{flops / 1e12:.2g}"
