"""Predicted step times beside measured ones on this CPU: calibrates for each case, then trains some steps of it.

    python benchmarks/plan_against_run.py

Run it with nothing else on the machine. The promise: within 25 %.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group
from megatron_iberis.planner.calibration import measure
from megatron_iberis.planner.layouts import own_layout
from megatron_iberis.planner.plan import predict
from megatron_iberis.planner.rates import GLOO
from megatron_iberis.training.engine import Engine

STEPS = 12


@dataclass(frozen=True)
class Case:
    """A recipe that is run; settings: over the demo's."""

    name: str
    settings: tuple[str, ...]


CASES = (
    Case("the demo, bf16", ()),
    Case("the demo, fp32", ("--train.dtype=fp32",)),
    Case("the demo, recomputed", ("--parallel.recompute",)),
    Case("4 rows a micro-batch", ("--train.device_batch=4",)),
    Case("depth 4, width 256, 4 x 512, V 8,192", ("--model.vocab_size=8192", "--model.sequence_length=512")),
    Case("the same, compiled", ("--model.vocab_size=8192", "--model.sequence_length=512", "--train.compile")),
    Case("depth 8, width 512", ("--model.depth=8", "--train.device_batch=4")),
)


def seconds_of_steps(recipe: Recipe, groups: ParallelGroups) -> float:
    """The median of some steps on random tokens, after two that do not count."""
    engine = Engine(recipe, groups, torch.device("cpu"))
    shape, took = (recipe.train.device_batch, recipe.model.sequence_length), []
    for step in range(STEPS):
        batches = [Batch(*_random(shape, recipe.model.vocab_size)) for _ in range(engine.accumulation)]
        started = time.perf_counter()
        engine.step(step, batches)
        took.append(time.perf_counter() - started)
    engine.deepspeed.destroy()
    return statistics.median(took[2:])


def _random(shape: tuple[int, int], vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(vocabulary, shape), torch.randint(vocabulary, shape)


def rows() -> Iterator[tuple[str, float, float]]:
    """Name, predicted and measured seconds of each case."""
    start_process_group(5)
    groups = ParallelGroups.create()
    for case in CASES:
        recipe = load_recipe("demo", case.settings)
        train = recipe.train
        rates = measure(recipe, torch.device("cpu")).rates(train.dtype, False, 1, GLOO, train.compile)
        layout = own_layout(recipe, 1)
        assert rates
        assert layout
        yield case.name, predict(recipe, layout, rates).time.seconds, seconds_of_steps(recipe, groups)


if __name__ == "__main__":
    print(f"{'':40} predicted   measured")
    for name, predicted, measured in rows():
        print(
            f"{name:40} {predicted:7.3f} s  {measured:7.3f} s  {100 * (measured / predicted - 1):+5.0f} %", flush=True
        )
