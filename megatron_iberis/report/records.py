"""Runs as they lie on the disk: recipe, log.jsonl, evaluations. Nothing is invented for what is not there."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_iberis.config import ModelConfig, Recipe, load_recipe
from megatron_iberis.config.stage import LABELS, Stage, stage_of
from megatron_iberis.errors import InputError
from megatron_iberis.report.evaluations import Evaluations, read_evaluations
from megatron_iberis.run_folder import RunFolder

Fields = Mapping[str, Any]
NOT_COMPARED = {"sequence_length", "mlp_ratio", "head_size"}
"""A stage may have rows of another length; the last two are told by mlp_hidden and heads."""
_NEEDED = {
    "step": ("loss", "tokens", "seconds"),
    "validation": ("loss", "bits_per_byte"),
    "samples": ("samples",),
    "note": ("text",),
}
"""Without which a line of the log is none."""


@dataclass
class Log:
    """The lines of a log.jsonl by their kind. cut: whether its last line was cut off, which is left out."""

    steps: list[Fields] = field(default_factory=list)
    validations: list[Fields] = field(default_factory=list)
    samples: list[Fields] = field(default_factory=list)
    notes: list[Fields] = field(default_factory=list)
    starts: list[Fields] = field(default_factory=list)
    figures: dict[str, list[Fields]] = field(default_factory=lambda: defaultdict(list))
    cut: bool = False

    def add(self, line: Fields) -> None:
        """Takes in an event; one of a kind that is not known is passed over. KeyError or TypeError: it is damaged."""
        kind = line["event"]
        if kind == "figures":
            self.figures[line["group"]].append({"step": line["step"], **line["values"]})
        else:
            kinds = {
                "step": self.steps,
                "validation": self.validations,
                "samples": self.samples,
                "note": self.notes,
                "start": self.starts,
            }
            if type(line["step"]) is not int or not {*_NEEDED.get(kind, ())} <= line.keys():
                raise TypeError
            kinds.get(kind, []).append(line)

    def last(self, group: str) -> Fields:
        """The newest figures of a group; empty where there are none."""
        return self.figures[group][-1] if self.figures.get(group) else {}

    @property
    def machines(self) -> list[Fields]:
        """What the run ran on, each once."""
        found: list[Fields] = []
        for start in self.starts:
            if start.get("machine") and start["machine"] not in found:
                found.append(start["machine"])
        return found


@dataclass(frozen=True)
class Run:
    """A run. label: its stage's name, with its folder's where two runs are of one stage."""

    folder: RunFolder
    recipe: Recipe
    log: Log
    evaluations: Evaluations
    overlap: Fields
    label: str = ""

    @property
    def stage(self) -> Stage:
        return stage_of(self.recipe)

    @cached_property
    def tokens(self) -> int:
        """Tokens of all steps, those that fill up rows included."""
        return sum(line["tokens"] for line in self.log.steps)

    @cached_property
    def seconds(self) -> float:
        """Of its steps and validations: pauses, starting and saving are not in it."""
        return sum(line.get("seconds") or 0.0 for line in (*self.log.steps, *self.log.validations))

    @property
    def steps(self) -> int:
        """The steps that were done."""
        return self.log.steps[-1]["step"] if self.log.steps else 0

    @property
    def finished(self) -> bool:
        return self.steps >= self.recipe.train.steps


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """The runs in the folders, in this order, and before the first of them those that it began from.

    Earlier runs are followed by `run.start_from` as far as they are there. InputError where a folder holds no run, a
    log is damaged, a run is named twice, or the models are of different sizes.
    """
    runs = [_read_run(RunFolder(path)) for path in paths]
    seen = Counter(run.folder.path.resolve() for run in runs)
    if twice := next((path for path, count in seen.items() if count > 1), None):
        raise InputError(f"{twice} is named twice: name each run once, in the order of their stages.")
    while (earlier := _before(runs[0])) and earlier.path.resolve() not in seen:
        seen[earlier.path.resolve()] += 1
        runs.insert(0, _read_run(earlier))
    _check_models(runs)
    return _labelled(runs)


def _read_run(folder: RunFolder) -> Run:
    if not folder.recipe.is_file():
        raise InputError(f"there is no run in {folder.path} ({folder.recipe.name} is missing): name a run's folder.")
    if not folder.log.is_file():
        raise InputError(
            f"{folder.path} has no {folder.log.name}, which tells how a run went: name the folder of a run that was "
            "trained by this project."
        )
    recipe = load_recipe(folder.recipe)
    return Run(folder, recipe, read_log(folder.log), read_evaluations(folder.path), _overlap(folder.overlap))


def read_log(path: Path) -> Log:
    """A log. A last line that was cut off is left out and said; InputError for a damaged line before it."""
    log, content = Log(), path.read_bytes()
    lines = content.splitlines()
    for number, text in enumerate(lines, 1):
        try:
            log.add(json.loads(text))
        except (ValueError, KeyError, TypeError, RecursionError):
            if number < len(lines) or content.endswith(b"\n"):
                raise InputError(f"line {number} of {path} is damaged: remove this line from it.") from None
            log.cut = True
    return log


def _overlap(path: Path) -> Fields:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
        for row in (*found["sets"], *found["sources"], *found["both"]):
            _ = row.items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is no table of iberis data overlap --output: write it again.") from None
    return dict(found)


def _before(run: Run) -> RunFolder | None:
    """The run that the weights came from, where it is still there: as it is named, or beside this run."""
    start = run.recipe.run.start_from
    if not start:
        return None
    path = Path(start)
    named = path.parent.parent if path.parent.name == "checkpoints" else path
    for place in (named, run.folder.path.resolve().parent / named.name):
        folder = RunFolder(place)
        if folder.recipe.is_file() and folder.log.is_file():
            return folder
    return None


def _check_models(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for setting in fields(ModelConfig):
            ours, theirs = getattr(first.recipe.model, setting.name), getattr(run.recipe.model, setting.name)
            if setting.name not in NOT_COMPARED and ours != theirs:
                raise InputError(
                    f"{first.folder.path} and {run.folder.path} are runs of different models (model.{setting.name} "
                    f"is {ours} and {theirs}): a report is about one model, name the runs of one."
                )


def _labelled(runs: Sequence[Run]) -> list[Run]:
    counts = Counter(run.stage for run in runs)

    def label(run: Run) -> str:
        own = LABELS[run.stage]
        return own if counts[run.stage] == 1 else f"{own} ({run.folder.path.resolve().name})"

    return [replace(run, label=label(run)) for run in runs]
