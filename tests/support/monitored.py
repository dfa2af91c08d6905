"""A run that tells a monitor of its steps, and what can be read of it afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.hardware.peaks import Peak
from megatron_iberis.monitor.events import Samples, SampleText, Validation
from megatron_iberis.monitor.monitor import Monitor, StepMetrics

STEPS = 8
RATES = {"matrix": 0.02, "embedding": 0.15, "unembedding": 0.003, "convolution": 0.015}
PEAK = Peak(1e15, "a test GPU")
SAMPLES = (SampleText("The capital of France is", " *Paris*.\n# 1"), SampleText("日本の首都は", "東京です。\x1b[31m"))
RECIPE = load_recipe("d20", ["--train.steps", str(STEPS), "--evaluation.every", "4", "--train.log_every", "1"])


def metrics(step: int, loss: float | None = None, seconds: float = 3.0) -> StepMetrics:
    return StepMetrics(step, 10.0 - step if loss is None else loss, 0.5, RATES, 0.9, seconds, 524288)


def run(folder: Path, first: int, last: int, recipe: Recipe = RECIPE) -> None:
    """Steps [first, last) of a run, with a validation and samples after every fourth."""
    monitor = Monitor(folder, recipe, world=2, first_step=first, peak=PEAK)
    monitor.start(["model: 542,035,200 parameters", "layout: tensor 1 x data 2, ZeRO 1"])
    for step in range(first, last):
        monitor.step(metrics(step))
        if (step + 1) % 4 == 0:
            monitor.tell(Validation(step + 1, 1.0 / (step + 1), 2.0, 1.5))
            monitor.tell(Samples(step + 1, SAMPLES))
            monitor.note(f"checkpoint after step {step + 1}")
    monitor.close()


def log_of(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [fields for fields in map(json.loads, lines) if fields["event"] == event]


def curves(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def points(accumulator: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]
