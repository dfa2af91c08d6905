"""The pictures of scores: a bar a stage with two standard errors, chance, and the published figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron_iberis.config.stage import Stage
from megatron_iberis.report.drawing import COLOURS, GREY, new_figure, png, style


@dataclass(frozen=True)
class Bar:
    """A stage's score of a task, from 0 to 1, and its standard error."""

    label: str
    stage: Stage
    score: float
    error: float
    again: bool = False
    """Whether another run of this stage has the colour."""


@dataclass(frozen=True)
class Group:
    """The bars of a task; chance and published: where there are such figures."""

    task: str
    bars: Sequence[Bar]
    chance: float | None = None
    published: float | None = None


def scores(groups: Sequence[Group], published: str = "") -> bytes | None:
    """All groups below each other. published: what the published figures' mark is called in the legend."""
    groups = [group for group in groups if group.bars]
    if not groups:
        return None
    with style():
        rows = sum(len(group.bars) for group in groups) + 0.8 * len(groups)
        figure = new_figure(min(14.0, 0.9 + 0.19 * rows))
        axes = figure.subplots()
        place, ticks, shown = 0.0, [], dict[str, Any]()
        for group in groups:
            middle = place + (len(group.bars) - 1) / 2
            ticks.append((middle, group.task))
            for bar in group.bars:
                hatch = "////" if bar.again else None
                shown[bar.label] = axes.barh(
                    place,
                    100 * bar.score,
                    0.86,
                    color=COLOURS[bar.stage],
                    edgecolor="white",
                    hatch=hatch,
                    linewidth=0,
                )
                error: dict[str, Any] = {"xerr": 200 * bar.error, "ecolor": "black", "elinewidth": 0.9, "capsize": 2}
                axes.errorbar(100 * bar.score, place, fmt="none", **error)
                place += 1.0
            above, below = middle - len(group.bars) / 2, middle + len(group.bars) / 2
            if group.chance:
                shown["chance"] = axes.vlines(100 * group.chance, above, below, GREY, linestyle=(0, (2, 1.5)))
            if group.published is not None:
                at = 100 * group.published
                shown[published] = axes.scatter(
                    at, middle, marker="D", s=34, color="white", edgecolor="black", zorder=5
                )
            place += 0.8
        axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
        axes.set_ylim(place - 0.8, -0.8)
        right = min(101.0, axes.get_xlim()[1])
        axes.set_xlim(-0.005 * right, right)  # no score is less than 0, and none more than 100
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("score x 100, with two standard errors")
        figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=len(shown), frameon=False)
        return png(figure)
