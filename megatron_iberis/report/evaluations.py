"""The evaluations in a run's folder: each result.json that `iberis eval` has left there, in whichever folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Measure
from megatron_iberis.evaluation.journal import RESULT
from megatron_iberis.evaluation.report import summaries

Kind = Literal["base", "chat"]
"""As a text goes on, or in conversation: tasks of one name are two tasks then."""

_SUMMARIES: dict[Kind, tuple[str, ...]] = {"base": ("core", "japanese"), "chat": ("chat_core",)}


@dataclass(frozen=True)
class Scored:
    """A task's measure. step: of the checkpoint; limit: items at most, 0: all there are."""

    measure: Measure
    step: int
    limit: int


@dataclass(frozen=True)
class HarnessScore:
    """A figure of lm-evaluation-harness, with its standard error where it tells one."""

    task: str
    metric: str
    value: float
    error: float | None
    n: int | None


@dataclass
class Evaluations:
    """Of a run: tasks by kind and name, each of the newest step, and of those the one with the most items."""

    tasks: dict[Kind, dict[str, Scored]] = field(default_factory=lambda: {"base": {}, "chat": {}})
    harness: list[HarnessScore] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(self.tasks.values()) or bool(self.harness)

    @property
    def all(self) -> list[Scored]:
        return [scored for found in self.tasks.values() for scored in found.values()]

    def summaries(self) -> dict[str, dict[str, Any]]:
        """CORE and JA mean (core, japanese), ChatCORE (chat_core), each of tasks at one `step`, the newest."""
        found: dict[str, dict[str, Any]] = {}
        for kind, names in _SUMMARIES.items():
            tasks = self.tasks[kind].values()
            for step in sorted({scored.step for scored in tasks}, reverse=True):
                made = summaries([scored.measure for scored in tasks if scored.step == step])
                for name in names:
                    if name in made and name not in found and "missing" not in made[name]:
                        found[name] = {**made[name], "step": step}
        return found


def read_evaluations(folder: Path) -> Evaluations:
    """All below a run's folder. InputError for a result that is damaged."""
    found = Evaluations()
    for path in sorted(folder.rglob(RESULT)):
        try:
            result = json.loads(path.read_bytes())
            if isinstance(result, dict) and result.get("kind") in ("base", "chat"):
                _add(found, result)
            elif isinstance(result, dict) and isinstance(result.get("results"), dict):
                found.harness += _harness_scores(result)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path} is damaged: give the same iberis eval again, or remove it.") from None
    return found


def _add(found: Evaluations, result: Mapping[str, Any]) -> None:
    step, limit = int(result["settings"]["step"]), int(result["settings"].get("limit") or 0)
    tasks = found.tasks[result["kind"]]
    for name, fields in result["tasks"].items():
        new = Scored(Measure.from_json(name, fields), step, limit)
        old = tasks.get(name)
        if old is None or (new.step, new.measure.n) > (old.step, old.measure.n):
            tasks[name] = new


def _harness_scores(result: Mapping[str, Any]) -> list[HarnessScore]:
    """Each "metric,filter" of each task."""
    scores = []
    for task, values in result["results"].items():
        counted = result.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, comma, how = key.partition(",")
            if (
                not comma
                or metric.endswith("_stderr")
                or isinstance(value, bool)
                or not isinstance(value, int | float)
            ):
                continue
            error = values.get(f"{metric}_stderr,{how}")
            label = metric if how == "none" else f"{metric}, {how}"
            scores.append(HarnessScore(task, label, value, error if isinstance(error, float) else None, counted))
    return scores
