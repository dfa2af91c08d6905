"""The training loop: batches -> engine -> monitor, and what is to be done every so many steps.

The loop has no state but the step: the place in the data, the rates and the momentum all follow from it.
Ranks decide nothing alone: they stop after the same step, and skip the same steps.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_iberis.config import Recipe
from megatron_iberis.data.batches import Batch, micro_batches, prefetch
from megatron_iberis.data.plan import BatchPlan
from megatron_iberis.data.rows import Located, SampleSource
from megatron_iberis.monitor.events import TRAIN, Figures
from megatron_iberis.monitor.monitor import Monitor, StepMetrics
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.resilience.heartbeat import Heartbeat
from megatron_iberis.training.engine import NEXT_TOKEN, Engine, StepResult
from megatron_iberis.training.objectives import Objective
from megatron_iberis.training.schedule import muon_momentum
from megatron_iberis.training.skipped_steps import SkippedSteps

StepBatches = Callable[[int], list[Batch]]
"""Called by all ranks before each step with its number, from 0: this rank's micro-batches, `accumulation` of them."""


@dataclass(frozen=True)
class Periodic:
    """Something done between steps, by all ranks together: `action(steps done)`. phase: its name for the watchdog.

    every: after each so many steps and after the last; 0: after the last alone. at_start: before the first, too.
    at_stop: also, and then only this, when the run is asked to stop, for then it may have half a minute left.
    """

    every: int
    action: Callable[[int], None]
    at_start: bool = False
    at_stop: bool = False
    phase: str = "between steps"

    def is_due(self, done: int, steps: int, stop: bool = False) -> bool:
        if stop and done < steps:
            return self.at_stop
        if done == 0:
            return self.at_start and self.every > 0
        return done == steps or (self.every > 0 and done % self.every == 0)


def train(
    recipe: Recipe,
    engine: Engine,
    source: Located,
    batches_of: StepBatches,
    first_step: int,
    between: Sequence[Periodic],
    monitor: Monitor | None,
    stop: Callable[[], bool] = lambda: False,
    objective: Objective = NEXT_TOKEN,
) -> int:
    """Trains from `first_step` (0-based) to the recipe's last; called by all ranks, of which rank 0 has a monitor.

    What was due before first_step is not done again: a resumed run continues as if it had not stopped. stop: whether
    this rank was asked to stop; all ranks do so after the same step. source: tells where samples lie. Returns the
    steps done. Raises RunFailedError on all ranks after too many skipped steps.
    """
    steps, rows = recipe.train.steps, recipe.train.batch_tokens // recipe.model.sequence_length
    folder = Path(recipe.run.folder) if monitor else None
    skipped = SkippedSteps(folder, source, rows, recipe.train.max_skipped_steps)
    if first_step == 0:
        _do_what_is_due(between, 0, steps, engine.heartbeat)
    for step in range(first_step, steps):
        started = time.monotonic()
        engine.heartbeat.beat("data", step + 1)
        result = engine.step(step, batches_of(step), objective, stop)
        if monitor:
            monitor.step(_progress(recipe, engine, step, result, time.monotonic() - started))
            if result.figures:
                monitor.tell(Figures(step + 1, TRAIN, result.figures))
        problem = skipped.add(step, result)
        if monitor and problem:
            monitor.note(problem)
        if step == first_step:
            gc.collect()
            gc.freeze()  # all that a run is made of is there now: a collection need not look through it again
        _do_what_is_due(between, step + 1, steps, engine.heartbeat, result.stop)
        if result.stop:
            return step + 1
    return steps


def in_order(source: SampleSource, recipe: Recipe, groups: ParallelGroups, first_step: int) -> StepBatches:
    """The source's samples one after the other, read ahead of time. first_step: the first that will be asked for."""
    plan = batch_plan(recipe, groups)
    batches: Iterator[Batch] = prefetch(micro_batches(source, plan, first_step, recipe.train.steps))
    return lambda step: [next(batches) for _ in range(plan.accumulation)]


def batch_plan(recipe: Recipe, groups: ParallelGroups) -> BatchPlan:
    """How the rows of a step are shared out."""
    return BatchPlan(
        global_batch=recipe.train.batch_tokens // recipe.model.sequence_length,
        micro_batch=recipe.train.device_batch,
        rank=groups.dp_rank,
        ranks=groups.dp_size,
    )


def _do_what_is_due(
    between: Sequence[Periodic], done: int, steps: int, heartbeat: Heartbeat, stop: bool = False
) -> None:
    for periodic in between:
        if periodic.is_due(done, steps, stop):
            heartbeat.beat(periodic.phase)
            periodic.action(done)


def _progress(recipe: Recipe, engine: Engine, step: int, result: StepResult, seconds: float) -> StepMetrics:
    return StepMetrics(
        step=step,
        loss=result.loss,
        gradient_norm=result.gradient_norm,
        learning_rates=engine.optimizer.learning_rates(),
        momentum=muon_momentum(step, recipe.optimizer),
        seconds=seconds,
        tokens=recipe.train.batch_tokens,
        skipped=result.skipped,
    )
