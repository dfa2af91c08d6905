"""Curves of runs one after the other: by the tokens that the model has seen, or by the time that it took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from megatron_iberis.report.data import languages_in
from megatron_iberis.report.records import Fields, Run

By = Literal["tokens", "hours"]
_MOST_TASKS = 4
MOST_POINTS = 800
"""Of a curve: more than a picture has columns would show nothing more."""


@dataclass(frozen=True)
class Curve:
    """x and y of a figure; nan and infinities are left out."""

    x: list[float]
    y: list[float]

    def __bool__(self) -> bool:
        return bool(self.x)


class Places:
    """Where each step of a run stands on the x axis. start: where the run begins; end: where it ends."""

    def __init__(self, run: Run, by: By, start: float = 0.0) -> None:
        self.start = self.end = start
        self._of = {0: start}
        validations = {line["step"]: line.get("seconds") or 0.0 for line in run.log.validations}
        for line in run.log.steps:
            if by == "tokens":
                self.end += line["tokens"]
            else:
                self.end += ((line["seconds"] or 0.0) + validations.get(line["step"] - 1, 0.0)) / 3600
            self._of[line["step"]] = self.end

    def __contains__(self, step: int) -> bool:
        return step in self._of

    def __getitem__(self, step: int) -> float:
        return self._of[step]


def places(runs: Sequence[Run], by: By) -> list[Places]:
    """Of each run; each begins where the one before ends."""
    found: list[Places] = []
    for run in runs:
        found.append(Places(run, by, found[-1].end if found else 0.0))
    return found


def curve(lines: Iterable[Fields], name: str, where: Places | None = None, most: int = MOST_POINTS) -> Curve:
    """A figure of events, by the step where no places are given; means of neighbours where there are many."""
    found = [
        (float(line["step"] if where is None else where[line["step"]]), float(line[name]))
        for line in lines
        if isinstance(line.get(name), int | float)
        and math.isfinite(line[name])
        and (where is None or line["step"] in where)
    ]
    size = max(1, math.ceil(len(found) / most))
    parts = [found[i : i + size] for i in range(0, len(found), size)]
    return Curve(
        [sum(x for x, _ in part) / len(part) for part in parts],
        [sum(y for _, y in part) / len(part) for part in parts],
    )


def bits_by_language(run: Run, where: Places) -> dict[str, Curve]:
    """Bits per byte of held-out text along the run, of each language where it was told apart, else of all."""
    prefix = "bits_per_byte_"
    told = run.log.figures.get("validation", [])
    names = sorted({name for line in told for name in line if name.startswith(prefix)})
    if names:
        return {name.removeprefix(prefix): curve(told, name, where) for name in names}
    whole = curve(run.log.validations, "bits_per_byte", where)
    own = languages_in(run.recipe.data.val.rpartition("/")[2])
    return {own.pop() if len(own) == 1 else "held-out": whole} if whole else {}


def tasks_along_the_way(run: Run, where: Places) -> dict[str, Curve]:
    """Scores that were measured while the run trained: the means of tasks, or a few tasks where there is none."""
    lines = run.log.figures.get("tasks", [])
    names = dict.fromkeys(name for line in lines for name in line if name != "step" and "/" not in name)
    means = [name for name in ("core", "japanese", "chat_core") if name in names]
    found = {name: curve(lines, name, where) for name in means or list(names)[:_MOST_TASKS]}
    return {name: Curve(each.x, [100 * y for y in each.y]) for name, each in found.items()}


def learning_rates(run: Run, where: Places) -> Curve:
    """As a share of the largest: all kinds of parameters follow one course."""
    lines = [
        {"step": line["step"], "rate": max(line["learning_rates"].values(), default=0.0)}
        for line in run.log.steps
        if isinstance(line.get("learning_rates"), dict)
    ]
    top = max((line["rate"] for line in lines), default=0.0) or 1.0
    return curve([{**line, "rate": line["rate"] / top} for line in lines], "rate", where)
