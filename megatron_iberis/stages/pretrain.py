"""Pretraining: token files -> a trained model in a run folder."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_iberis.config import Recipe
from megatron_iberis.evaluation.live import live_tasks
from megatron_iberis.monitor.monitor import Monitor
from megatron_iberis.stages.between_steps import Validate, WriteTexts
from megatron_iberis.stages.inputs import Inputs
from megatron_iberis.stages.training_run import run_training, samples_of
from megatron_iberis.training.engine import Engine
from megatron_iberis.training.trainer import Periodic


def run(recipe: Recipe, inputs: Inputs) -> int:
    """Pretrains on this rank; returns the exit code. As `run_training`, which see."""

    def evaluations(engine: Engine, monitor: Monitor | None) -> Sequence[Periodic]:
        """Validation and sample texts, as far as the recipe has them."""
        found, every = [], recipe.evaluation
        if inputs.val:
            validate = Validate(engine, {"all": inputs.val}, inputs.tokenizer, monitor)
            found.append(Periodic(every.every, validate, at_start=True, phase="validation"))
        if every.sample_every:
            write = WriteTexts(engine, inputs.tokenizer, monitor)
            found.append(Periodic(every.sample_every, write, phase="sampling"))
        return [*found, *live_tasks(engine, inputs.tokenizer, monitor)]

    return run_training(
        recipe,
        inputs.tokenizer,
        inputs.train,
        samples_of(inputs.train),
        inputs.token_files,
        evaluations,
        start=inputs.start,
    )
