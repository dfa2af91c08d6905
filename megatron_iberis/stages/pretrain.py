"""Pretraining: token files -> a trained model in a run folder.

The run folder holds recipe.toml (as resolved), checkpoints/, tensorboard/, tokenizer/, log.jsonl.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from megatron_iberis.checkpoint.load import Checkpoint, newest_to_resume
from megatron_iberis.checkpoint.resume import check_same_run
from megatron_iberis.checkpoint.save import CheckpointWriter
from megatron_iberis.config import Recipe, save_recipe
from megatron_iberis.hardware.measure import peak_flops
from megatron_iberis.hardware.peaks import Peak
from megatron_iberis.kernels.choice import kernels_line
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.parallel.agreement import raise_on_any_rank
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group
from megatron_iberis.resilience.failure import RunFailedError
from megatron_iberis.resilience.heartbeat import Heartbeat
from megatron_iberis.resilience.preemption import StopRequest
from megatron_iberis.resilience.watchdog import Watchdog
from megatron_iberis.stages.between_steps import Sample, Save, Validate
from megatron_iberis.stages.inputs import Inputs
from megatron_iberis.training.engine import Engine
from megatron_iberis.training.trainer import Periodic, train


def run(recipe: Recipe, inputs: Inputs) -> int:
    """Runs the recipe on this rank to its end, or until it is asked to stop (SIGTERM); returns the exit code.

    It is 1 when a checkpoint could not be saved, or the run could not go on, which the monitor tells. Raises
    InputError on bad input.
    """
    device = start_process_group(recipe.parallel.timeout_minutes)
    heartbeat = Heartbeat()
    with Watchdog(Path(recipe.run.folder) / "log", recipe.parallel.timeout_minutes, heartbeat):
        return _run(recipe, inputs, device, heartbeat)


def _run(recipe: Recipe, inputs: Inputs, device: torch.device, heartbeat: Heartbeat) -> int:
    peak = peak_flops(device, recipe.train.dtype) if dist.get_rank() == 0 else None
    dist.barrier()  # a CPU's peak is measured: nobody else may be busy meanwhile
    groups = ParallelGroups.create(recipe.parallel.tp, recipe.parallel.cp)
    torch.manual_seed(recipe.train.seed)  # nothing draws from it today; a run is to have no other start
    folder = Path(recipe.run.folder)
    found, notes = newest_to_resume(folder / "checkpoints") if recipe.run.resume else (None, [])
    checkpoint = Checkpoint(found) if found else None
    recipe = replace(recipe, run=replace(recipe.run, resume=False))  # so that the saved one starts the same run
    if checkpoint:
        notes += check_same_run(recipe, inputs.tokenizer, checkpoint.folder)
    raise_on_any_rank(_guarded(lambda: _prepare_folder(recipe, folder)) if dist.get_rank() == 0 else None)
    engine = Engine(recipe, groups, device, checkpoint.weights if checkpoint else None, heartbeat)
    if checkpoint:
        checkpoint.restore_optimizer(engine.state)
        checkpoint.restore_random_state()
        checkpoint.close()
    tokenizer = Path(recipe.data.tokenizer)
    writer = CheckpointWriter(folder / "checkpoints", recipe, tokenizer, engine.state, heartbeat.touch)
    first_step = checkpoint.step if checkpoint else 0
    monitor = _start_monitor(recipe, inputs, folder, first_step, engine, peak) if peak else None
    if monitor:
        for problem in notes:
            monitor.note(problem)
        if first_step >= recipe.train.steps:
            monitor.note(
                f"the run is finished: it has done its {recipe.train.steps} steps; raise train.steps to go on"
            )
    save = Save(writer, monitor)
    between = [
        *_looks(recipe, inputs, engine, monitor),
        Periodic(recipe.checkpoint.every, save, at_stop=True, phase="saving"),
        Periodic(1, save.tell),
    ]
    end = None
    with StopRequest() as stop:
        try:
            done = train(recipe, engine, inputs.train, first_step, between, monitor, stop.asked)
            if done < recipe.train.steps and monitor:
                monitor.note(f"stopped after step {done}, as asked: the same command with --run.resume goes on")
        except RunFailedError as error:
            end = str(error)
        finally:
            heartbeat.beat("saving")
            save.finish()
    failures = [*save.failures, *([end] if end else [])]
    if monitor:
        for failure in failures:
            monitor.note(failure)
        monitor.close()
    return 1 if failures else 0


def _looks(recipe: Recipe, inputs: Inputs, engine: Engine, monitor: Monitor | None) -> list[Periodic]:
    """Validation and sample texts, as far as the recipe has them."""
    looks = []
    if inputs.val:
        validate = Validate(engine, inputs.val, inputs.tokenizer, monitor)
        looks.append(Periodic(recipe.evaluation.every, validate, at_start=True, phase="validation"))
    if recipe.evaluation.sample_every:
        sample = Sample(engine, inputs.tokenizer, monitor)
        looks.append(Periodic(recipe.evaluation.sample_every, sample, phase="sampling"))
    return looks


def _guarded(action: Callable[[], None]) -> str | None:
    """The action's problem in a sentence, for `raise_on_any_rank`."""
    try:
        action()
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _prepare_folder(recipe: Recipe, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, folder / "recipe.toml")
    own = folder / "tokenizer"
    if own.resolve() != Path(recipe.data.tokenizer).resolve():
        shutil.copytree(recipe.data.tokenizer, own, dirs_exist_ok=True)


def _start_monitor(
    recipe: Recipe, inputs: Inputs, folder: Path, first_step: int, engine: Engine, peak: Peak
) -> Monitor:
    model, parallel, groups = recipe.model, recipe.parallel, engine.groups
    monitor = Monitor(folder, recipe, dist.get_world_size(), first_step, peak)
    attention = len(model.attention_layers)
    monitor.start(
        [
            f"model: {model.parameter_count():,} parameters, {model.depth} layers ({model.depth - attention} SLC2, "
            f"{attention} attention), width {model.width}, {model.heads} heads, vocabulary {model.vocab_size:,}",
            f"layout: tensor {groups.tp_size}{' + sequence' if parallel.sequence_parallel else ''} x context "
            f"{groups.cp_size} x data {groups.dp_size}, ZeRO {parallel.zero_stage}, "
            f"{recipe.train.dtype} on {engine.device.type}",
            kernels_line(),
            f"batch: {recipe.train.batch_tokens:,} tokens = {recipe.train.device_batch} rows x "
            f"{model.sequence_length} x {groups.dp_size} ranks x {engine.accumulation} micro-batches",
            f"data: {inputs.train}; "
            f"{recipe.train.steps:,} steps make {recipe.train.steps * recipe.train.batch_tokens:,}",
            f"folder: {folder}",
        ]
    )
    if first_step:
        monitor.note(f"resumed after step {first_step}")
    return monitor
