"""Run folders as training and evaluation leave them: the real monitor and results, with invented figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from megatron_iberis.config import Recipe, load_recipe, save_recipe
from megatron_iberis.evaluation.benchmark import Measure
from megatron_iberis.evaluation.journal import EvaluationFolder
from megatron_iberis.evaluation.report import result
from megatron_iberis.hardware.peaks import Peak
from megatron_iberis.monitor.events import Event, Figures, Samples, SampleText, Validation
from megatron_iberis.monitor.monitor import Monitor, StepMetrics
from megatron_iberis.storage.atomic import write_json

STEPS = 8
PEAK = Peak(1e12, "a test GPU")
RATES = {"matrix": 0.02, "embedding": 0.2}
PAIR_FIGURES = {"margin": 0.02, "accuracy": 0.5, "ranking": 0.4, "loss": 0.6931}
COUNTS = {"read": 30.0, "dropped": 2.0, "cut": 1.0, "without_target": 0.0, "tokens": 5000.0, "targets": 2000.0}
PAIRS = {"read": 12.0, "equal": 1.0, "too_long": 2.0, "cut": 3.0, "kept": 9.0, "tokens": 900.0, "targets": 400.0}


def recipe_of(stage: str, folder: Path, before: Path | None = None, *words: str) -> Recipe:
    """The demo's recipe of a stage, for a run in `folder` that begins with the weights of the run `before`."""
    name = "demo" if stage == "base" else f"{stage}_demo"
    start = [f"--run.start_from={before}/checkpoints/step-{STEPS:08d}"] if before else []
    recipe = load_recipe(name, [f"--run.folder={folder}", f"--train.steps={STEPS}", *start, *words])
    return replace(recipe, reinforce=replace(recipe.reinforce, active=stage == "rl"))


def events_of(stage: str) -> list[Event]:
    """What a run of the stage tells beside its steps."""
    if stage == "dpo":
        log_probabilities = {"chosen_log_probability": -50.0, "rejected_log_probability": -45.5}
        later = {"margin": 0.5, "accuracy": 0.75, "loss": 0.5, "chosen_log_probability": -52.0}
        first = {**PAIR_FIGURES, **log_probabilities}
        return [
            Figures(0, "pairs/pairs.jsonl", PAIRS),
            Figures(0, "preference", first),
            Figures(STEPS, "preference", {**first, **later}),
        ]
    if stage == "rl":
        health = {"length": 20.0, "cut": 0.25}
        groups = {"groups": 8.0, "groups_trained_on": 6.0, "without_variance": 0.25}
        held_out = {"reward_error": 0.02, "pass@1": 0.1, "pass@2": 0.15}
        return [
            Figures(0, "held_out", {"reward": 0.1, **health, **held_out}),
            *(Figures(step, "answers", {"reward": 0.1 + 0.05 * step, **health, **groups}) for step in range(1, 9)),
            Figures(STEPS, "held_out", {"reward": 0.4, **health, **held_out}),
        ]
    told: list[Event] = [Validation(0, 3.0, 8.0, 2.0), Validation(STEPS, 1.5, 4.0, 2.0)]
    if stage == "base":
        told += [
            Figures(step, "tasks", {"core": 0.01 * step, "copa": 0.5, "copa/standard_error": 0.1}) for step in (4, 8)
        ]
    if stage != "base":
        told.insert(0, Figures(0, "conversations/chats.jsonl", COUNTS))
        told.append(Figures(STEPS, "validation", {"bits_per_byte_en": 1.4, "bits_per_byte_ja": 1.6}))
    return told


def write_run(
    recipe: Recipe, events: Sequence[Event], samples: Sequence[SampleText] = (), steps: int = STEPS
) -> Path:
    """A run's folder: recipe.toml and log.jsonl. Each step takes half a second; the third was skipped."""
    folder = Path(recipe.run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, folder / "recipe.toml")
    monitor = Monitor(folder, recipe, world=2, first_step=0, peak=PEAK)
    monitor.start(["model: small", "data: some"])
    waiting = sorted(events, key=lambda event: event.step)
    for step in range(steps):
        while waiting and waiting[0].step <= step:
            monitor.tell(waiting.pop(0))
        loss = math.nan if step == 2 else 8.0 - step / 2
        tokens = recipe.train.batch_tokens
        monitor.step(StepMetrics(step, loss, 0.5, RATES, 0.9, 0.5, tokens, skipped=step == 2))
    for event in waiting:
        monitor.tell(event)
    if samples:
        monitor.tell(Samples(steps, tuple(samples)))
    monitor.close()
    return folder


def measure(name: str, score: float, n: int = 100, chance: float = 0.25, **settings: object) -> Measure:
    """A task's measure with the error that so many items give."""
    error = math.sqrt(score * (1 - score) / n)
    return Measure(name, n, score, error, chance, settings={"language": "en", "kind": "choice", **settings})


def text_measure(language: str, bits: float) -> Measure:
    return Measure(
        f"text-{language}",
        40,
        None,
        None,
        0.0,
        bits,
        0.01,
        settings={"language": language, "kind": "text", "text": "t"},
    )


def write_evaluation(
    run: Path, kind: str, measures: Sequence[Measure], step: int = STEPS, limit: int = 0, name: str = ""
) -> None:
    """A folder of `iberis eval` in the run's."""
    settings = {"kind": kind, "step": step, "checkpoint": "c", "tokenizer": "t", "dtype": "fp32", "limit": limit}
    folder = EvaluationFolder(run / "evaluation" / (name or f"{kind}-{step}"), settings)
    folder.write_result(result(kind, settings, {"batch": 1}, measures))
    folder.close()


def write_manifest(prefix: Path, counts: Mapping[str, int], sources: Mapping[str, Mapping[str, int]]) -> None:
    """What preprocess.py writes beside a token file."""
    told = {"read": 110, "empty": 3, "too_short": 0, "rejected": {"no text": {"count": 2, "first": "a:1"}}}
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        prefix.with_name(prefix.name + ".json"), {**counts, "input": {**told, "duplicates": 5}, "files": sources}
    )
