"""What all training stages have in common: from opened samples to a trained model in a run folder.

The run folder holds recipe.toml (as resolved), checkpoints/, tensorboard/, tokenizer/, log.jsonl.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from megatron_iberis.checkpoint.load import Checkpoint, newest_to_resume
from megatron_iberis.checkpoint.resume import check_same_run
from megatron_iberis.checkpoint.save import CheckpointWriter
from megatron_iberis.config import Recipe, save_recipe
from megatron_iberis.data.rows import Located, SampleSource
from megatron_iberis.data.token_files.identity import identity
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.hardware.measure import peak_flops, resident_bytes
from megatron_iberis.hardware.peaks import Peak
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.monitor.opening import opening_lines
from megatron_iberis.parallel.agreement import raise_on_any_rank
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group
from megatron_iberis.planner.in_run import PlanCheck
from megatron_iberis.planner.micro_batch import with_micro_batch
from megatron_iberis.resilience.failure import RunFailedError
from megatron_iberis.resilience.heartbeat import Heartbeat
from megatron_iberis.resilience.preemption import StopRequest
from megatron_iberis.resilience.watchdog import Watchdog
from megatron_iberis.run_folder import RunFolder
from megatron_iberis.stages.between_steps import Save
from megatron_iberis.stages.start_from import Start, StartWeights, open_start
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.training.engine import NEXT_TOKEN, Engine
from megatron_iberis.training.objectives import Objective
from megatron_iberis.training.trainer import Periodic, StepBatches, in_order, train

Evaluations = Callable[[Engine, Monitor | None], Sequence[Periodic]]
"""What a stage looks at between steps, given the engine, and the monitor on rank 0."""
Feed = Callable[[Engine, Monitor | None, int], StepBatches]
"""Makes what gives each step its batches, given the engine, the monitor on rank 0, and the first step."""
Identities = Mapping[str, Mapping[str, Any]]


def run_training(
    recipe: Recipe,
    tokenizer: Tokenizer,
    source: Located,
    feed: Feed,
    token_files: Sequence[TokenFile],
    evaluations: Evaluations,
    objective: Objective = NEXT_TOKEN,
    start: Start | None = None,
) -> int:
    """Trains on this rank to the recipe's end, or until it is asked to stop (SIGTERM); returns the exit code.

    It is 1 when a checkpoint could not be saved, or the run had to be given up, which the monitor tells. Raises
    InputError on bad input.

    source: the samples to train on; its str() is said at the start. feed: makes batches of them.
    token_files: all that the run reads.
    objective: what is minimised.
    start: the weights that a run without a checkpoint begins with; by default those of a new model.
    """
    device = start_process_group(recipe.parallel.timeout_minutes)
    heartbeat = Heartbeat()
    with Watchdog(RunFolder(recipe.run.folder).rank_logs, recipe.parallel.timeout_minutes, heartbeat):
        peak = peak_flops(device, recipe.train.dtype) if dist.get_rank() == 0 else None
        dist.barrier()  # a CPU's peak is measured: nobody else may be busy meanwhile
        groups = ParallelGroups.create(recipe.parallel.tp, recipe.parallel.cp)
        recipe = with_micro_batch(recipe, device, dist.get_world_size())
        torch.manual_seed(recipe.train.seed)  # nothing draws from it today; a run is to have no other start
        identities = {file.name: identity(file) for file in token_files}
        checkpoint, notes = _find_checkpoint(recipe, tokenizer, identities)
        opened = open_start(start) if start and not checkpoint else None
        notes += opened.notes if opened else []
        recipe = _as_recorded(recipe, checkpoint, opened)
        raise_on_any_rank(_prepare_folder(recipe) if dist.get_rank() == 0 else None)
        resident = resident_bytes(device)
        engine = _start_engine(recipe, groups, device, heartbeat, checkpoint, opened)
        writer = _start_writer(engine, identities)
        first_step = checkpoint.step if checkpoint else 0
        monitor = _start_monitor(engine, str(source), peak, first_step, notes) if peak else None
        save = Save(writer, monitor)
        between = [
            *evaluations(engine, monitor),
            Periodic(recipe.checkpoint.every, save, at_stop=True, phase="saving"),
            Periodic(1, save.tell),
        ]
        if monitor and peak and objective == NEXT_TOKEN:  # what others take is not predicted
            check = PlanCheck(recipe, dist.get_world_size(), device, peak.flops, first_step, resident, monitor)
            between.append(Periodic(1, check, phase="planning"))
        batches_of = feed(engine, monitor, first_step)
        failures = _train_and_save(engine, source, batches_of, objective, first_step, between, save, monitor)
        if monitor:
            for failure in failures:
                monitor.note(failure)
            monitor.close()
        return 1 if failures else 0


def samples_of(source: SampleSource) -> Feed:
    """The source's samples as they are."""
    return lambda engine, monitor, first_step: in_order(source, engine.recipe, engine.groups, first_step)


def _find_checkpoint(
    recipe: Recipe, tokenizer: Tokenizer, token_files: Identities
) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to resume from, where one is asked for and there is one, and what to say of it."""
    if not recipe.run.resume:
        return None, []
    found, notes = newest_to_resume(RunFolder(recipe.run.folder).checkpoints)
    if found is None:
        return None, notes
    checkpoint = Checkpoint(found)
    changes = check_same_run(recipe, tokenizer, token_files, checkpoint.folder)
    notes = [f"resumed after step {checkpoint.step}", *notes, *changes]
    if checkpoint.step >= recipe.train.steps:
        notes.append(
            f"the run is finished: {checkpoint.step} steps are done and train.steps is {recipe.train.steps}; raise "
            "it to train further"
        )
    return checkpoint, notes


def _as_recorded(recipe: Recipe, checkpoint: Checkpoint | None, start: StartWeights | None) -> Recipe:
    """The recipe that is saved: it starts the same run, from the very weights that this one began with."""
    start_from = str(start.folder) if start else checkpoint.recipe.run.start_from if checkpoint else ""
    return replace(recipe, run=replace(recipe.run, resume=False, start_from=start_from))


def _prepare_folder(recipe: Recipe) -> str | None:
    """Makes the run's folder with recipe and tokenizer; why that is impossible, or None."""
    folder = RunFolder(recipe.run.folder)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        save_recipe(recipe, folder.recipe)
        own = folder.tokenizer
        if own.resolve() != Path(recipe.data.tokenizer).resolve():
            shutil.copytree(recipe.data.tokenizer, own, dirs_exist_ok=True)
    except OSError as error:
        return str(error)
    return None


def _start_engine(
    recipe: Recipe,
    groups: ParallelGroups,
    device: torch.device,
    heartbeat: Heartbeat,
    checkpoint: Checkpoint | None,
    start: StartWeights | None,
) -> Engine:
    """The engine, with the state of the checkpoint where there is one, or else the weights to start from."""
    source = checkpoint or start
    engine = Engine(recipe, groups, device, source.weights if source else None, heartbeat)
    if checkpoint:
        checkpoint.restore_optimizer(engine.state)
        checkpoint.restore_random_state()
    elif start:
        start.restore_optimizer(engine.state)
    if source:
        source.close()
    return engine


def _start_writer(engine: Engine, token_files: Identities) -> CheckpointWriter:
    recipe, tokenizer = engine.recipe, Path(engine.recipe.data.tokenizer)
    root = RunFolder(recipe.run.folder).checkpoints
    return CheckpointWriter(root, recipe, tokenizer, engine.state, engine.heartbeat.touch, token_files)


def _start_monitor(engine: Engine, data: str, peak: Peak, first_step: int, notes: Sequence[str]) -> Monitor:
    monitor = Monitor(Path(engine.recipe.run.folder), engine.recipe, dist.get_world_size(), first_step, peak)
    monitor.start(opening_lines(engine.recipe, engine.groups.dp_size, engine.device.type, data))
    for note in notes:
        monitor.note(note)
    return monitor


def _train_and_save(
    engine: Engine,
    source: Located,
    batches_of: StepBatches,
    objective: Objective,
    first_step: int,
    between: Sequence[Periodic],
    save: Save,
    monitor: Monitor | None,
) -> list[str]:
    """Trains and waits for the last save; returns what went wrong."""
    recipe, problems = engine.recipe, []
    with StopRequest() as stop:
        try:
            done = train(recipe, engine, source, batches_of, first_step, between, monitor, stop.asked, objective)
            if done < recipe.train.steps and monitor:
                monitor.note(f"stopped after step {done}, as asked: resume with the same command and --run.resume")
        except RunFailedError as error:
            problems.append(str(error))
        finally:
            engine.heartbeat.beat("saving")
            save.finish()
    return [*save.failures, *problems]
