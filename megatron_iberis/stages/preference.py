"""Preference optimisation: pairs of answers -> a chat model that prefers what people prefer, in a run folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from megatron_iberis.config import Recipe
from megatron_iberis.data.preference_rows import PreferenceRows
from megatron_iberis.evaluation.live import live_tasks
from megatron_iberis.monitor.events import Figures
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.run_folder import RunFolder
from megatron_iberis.stages.between_steps import WriteTexts
from megatron_iberis.stages.preference_inputs import PreferenceInputs, hash_of_weights
from megatron_iberis.stages.training_run import run_training, samples_of
from megatron_iberis.training.engine import Engine
from megatron_iberis.training.preference import Answers, PreferenceLoss
from megatron_iberis.training.references import ReferenceFile, log_probabilities
from megatron_iberis.training.trainer import Periodic


def run(recipe: Recipe, inputs: PreferenceInputs) -> int:
    """Trains on this rank; returns the exit code. As `run_training`, which see."""
    objective = PreferenceLoss(recipe.preference.loss, recipe.preference.beta)

    def between(engine: Engine, monitor: Monitor | None) -> Sequence[Periodic]:
        """What became of the pairs, and their references; held-out pairs and sample answers, if there are to be."""
        if monitor and inputs.start:
            tell_pairs(inputs, monitor)
        give_references(engine, inputs, monitor)
        found, every = [], recipe.evaluation
        if inputs.val:
            compare = CompareHeldOut(engine, inputs.val, objective, monitor)
            found.append(Periodic(every.every, compare, at_start=True, phase="validation"))
        if every.sample_every:
            write = WriteTexts(engine, inputs.tokenizer, monitor)
            found.append(Periodic(every.sample_every, write, phase="sampling"))
        return [*found, *live_tasks(engine, inputs.tokenizer, monitor)]

    return run_training(
        recipe, inputs.tokenizer, inputs.train, samples_of(inputs.train), [], between, objective, inputs.start
    )


def tell_pairs(inputs: PreferenceInputs, monitor: Monitor) -> None:
    """The table of the data, a line a file, and what should not be."""
    for group, tallies in inputs.tallies.items():
        for path, tally in tallies.items():
            values = {what: float(count) for what, count in asdict(tally).items()}
            monitor.tell(Figures(0, f"{group}/{Path(path).name}", values))
    rows, batch = len(inputs.train.rows), inputs.train.batch
    if rows < batch:
        monitor.note(
            f"an epoch has {rows:,} rows and a step {batch:,}: each step trains on all of them; lower "
            "train.batch_tokens for more steps"
        )
    if inputs.val:
        trained = {pair.hash() for pair in inputs.train.pairs}
        both = sum(pair.hash() in trained for pair in inputs.val.pairs)
        if both:
            monitor.note(f"warning: {both:,} of the held-out pairs are among those that are trained on")


def give_references(engine: Engine, inputs: PreferenceInputs, monitor: Monitor | None) -> None:
    """Gives all rows the log-probabilities that their answers had when the run began."""
    hashes, model = {"template": engine.recipe.run.template}, None
    if dist.get_rank() == 0:  # which reads and writes them for all
        model = hash_of_weights(Path(engine.recipe.run.start_from))
    if model:
        hashes["model"] = model
    for name, rows in (("train", inputs.train), ("val", inputs.val)):
        if rows:
            engine.heartbeat.beat("reference log-probabilities")
            path = RunFolder(engine.recipe.run.folder).references / f"{name}.safetensors"
            say = monitor.note if monitor else lambda text: None
            ReferenceFile(path, hashes).give(engine, rows, inputs.start is None, say)


@dataclass
class CompareHeldOut:
    """How often, and by how much, the model prefers the preferred answer of held-out pairs."""

    engine: Engine
    rows: PreferenceRows
    objective: PreferenceLoss
    monitor: Monitor | None

    def __call__(self, done: int) -> None:
        found = torch.from_numpy(log_probabilities(self.engine, self.rows))
        lengths = torch.tensor([pair.targets for pair in self.rows.pairs])
        assert self.rows.reference is not None
        losses, figures = self.objective.figures(Answers(found, lengths), torch.from_numpy(self.rows.reference))
        values = {name: float(each.mean()) for name, each in {"loss": losses, **figures}.items()}
        for share in ("accuracy", "ranking"):
            values[f"{share}_error"] = math.sqrt(values[share] * (1 - values[share]) / len(losses))
        if self.monitor:
            self.monitor.tell(Figures(done, "preference", values))
