"""The report's curves, drawn with matplotlib: what a run's log holds, and nothing else.

Each returns a PNG, the same for the same runs, or None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from megatron_iberis.report.drawing import COLOURS, GREY, new_figure, png, style
from megatron_iberis.report.records import Run
from megatron_iberis.report.series import (
    By,
    Curve,
    Places,
    bits_by_language,
    curve,
    learning_rates,
    places,
    tasks_along_the_way,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {"en": "-", "ja": "--"}
_TITLES = {"core": "CORE v1", "japanese": "JA mean", "chat_core": "ChatCORE"}
NAMES = {"en": "English", "ja": "Japanese"}
DOTS: dict[str, Any] = {"marker": "o", "markersize": 3.5}
HELD_OUT: dict[str, Any] = {"color": "black", **DOTS}
LEAST_SHARE = 0.16
"""Of the width, for a stage: mid-training and SFT are short beside pretraining, and would be lines."""


# ---- curves over all stages


Draw = Callable[["Axes", Run, Places], None]


def _by_stages(
    runs: Sequence[Run], by: By, rows: Sequence[tuple[str, Draw]], height: float, legend: Sequence[Any] = ()
) -> bytes:
    """A row of panels for each (label, what draws a run's part of it); a column a stage, short ones widened.

    legend: lines that stand for all of their kind.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with style():
        figure, where = new_figure(0.8 + height * len(rows)), places(runs, by)
        whole = where[-1].end or 1.0
        shares = [max(LEAST_SHARE, (place.end - place.start) / whole) for place in where]
        axes = figure.subplots(len(rows), len(runs), squeeze=False, sharey="row", sharex="col", width_ratios=shares)
        figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, wspace=0.0))
        for (label, draw), line in zip(rows, axes, strict=True):
            for run, place, panel in zip(runs, where, line, strict=True):
                draw(panel, run, place)
            line[0].set_ylabel(label)
        for run, place, share, column in zip(runs, where, shares, axes.T, strict=True):
            column[0].set_title(run.label, color=COLOURS[run.stage])
            column[0].set_xlim(place.start, place.end if place.end > place.start else place.start + 1)
            _mark_x(column[-1], place, share / sum(shares))
        for panel in axes[:, 1:].flat:
            panel.spines["left"].set_color("#888888")
            panel.tick_params(axis="y", length=0)
        if legend:
            figure.legend(handles=legend, loc="outside upper right", ncols=len(legend), frameon=False)
        axis = {"tokens": "tokens seen, one stage after the other", "hours": "hours of steps and validations"}
        figure.supxlabel(axis[by], fontsize=10)
        return png(figure)


def _mark_x(panel: Axes, place: Places, share: float) -> None:
    """Ticks at round numbers, or in a narrow panel at its end alone, so that no two labels meet."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    narrow = share < 0.3
    panel.xaxis.set_major_locator(FixedLocator([place.end]) if narrow else MaxNLocator(5, prune="both"))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    for label in panel.get_xticklabels() if narrow else ():
        label.set_horizontalalignment("right")


def _short(value: float) -> str:
    """Three digits: "0.25", "524k", "13.2B"."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def curves(runs: Sequence[Run], by: By) -> bytes | None:
    """Loss, and bits per byte of held-out text by language."""
    from matplotlib.lines import Line2D

    shown = [run for run in runs if run.log.steps]
    if not shown:
        return None
    languages = set[str]()

    def loss(panel: Axes, run: Run, place: Places) -> None:
        if run.stage in ("dpo", "rl"):
            return _say(panel, "another loss,\nsee below")
        _line(panel, curve(run.log.steps, "loss", place), run, alpha=0.3, linewidth=0.8)
        _line(panel, curve(run.log.steps, "loss_smooth", place), run)
        return _line(panel, curve(run.log.validations, "loss", place), run, **HELD_OUT)

    def held_out_bits(panel: Axes, run: Run, place: Places) -> None:
        found = bits_by_language(run, place)
        for language, each in found.items():
            _line(panel, each, run, linestyle=LINES.get(language, "-"), **DOTS)
        if not found:
            _say(panel, "none\nheld out")

    def tasks(panel: Axes, run: Run, place: Places) -> None:
        found = tasks_along_the_way(run, place)
        for number, (name, each) in enumerate(found.items()):
            how = ("-", "--", ":", "-.")[number % 4]
            _line(panel, each, run, linestyle=how, label=_TITLES.get(name, name), **DOTS)
        if found:
            panel.legend(frameon=False, loc="upper left").set_in_layout(False)

    told: list[tuple[str, dict[str, Any]]] = [
        ("each step", {"color": GREY, "alpha": 0.5, "linewidth": 0.8}),
        ("smoothed", {"color": GREY}),
        ("held-out", HELD_OUT),
    ]
    rows: list[tuple[str, Draw]] = [("loss, nats a token", loss)]
    if any(run.log.validations for run in shown):
        rows.append(("bits per byte, held-out", held_out_bits))
    if any(run.log.figures.get("tasks") for run in shown):
        rows.append(("scores on the way\n(x 100)", tasks))
    for run, place in zip(shown, places(shown, by), strict=True):
        languages.update(set(bits_by_language(run, place)) & set(LINES))
    told += [(NAMES[name], {"color": GREY, "linestyle": LINES[name], **DOTS}) for name in sorted(languages)]
    legend = [Line2D([], [], label=label, **how) for label, how in told]
    return _by_stages(shown, by, rows, 2.6, legend)


def training(runs: Sequence[Run]) -> bytes | None:
    """Learning rate, gradient norm with skipped steps, speed and MFU, by tokens."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    shown = [run for run in runs if run.log.steps]
    if not shown:
        return None

    def rate(panel: Axes, run: Run, place: Places) -> None:
        _line(panel, learning_rates(run, place), run)
        panel.set_ylim(0, 1.08)

    def norm(panel: Axes, run: Run, place: Places) -> None:
        _line(panel, curve(run.log.steps, "gradient_norm", place), run)
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
        for line in run.log.steps:
            if line.get("skipped"):
                panel.axvline(place[line["step"]], color="#D55E00", linewidth=0.8, linestyle=":")

    def speed(panel: Axes, run: Run, place: Places) -> None:
        warm = [line for line in run.log.steps if line.get("warm")]
        _line(panel, curve(warm, "tokens_per_second", place), run)
        panel.set_ylim(bottom=0)

    def mfu(panel: Axes, run: Run, place: Places) -> None:
        warm = [{**line, "mfu": 100 * line["mfu"]} for line in run.log.steps if line.get("warm") and line.get("mfu")]
        _line(panel, curve(warm, "mfu", place), run)
        panel.set_ylim(bottom=0)

    rows: list[tuple[str, Draw]] = [("learning rate\n(largest = 1)", rate), ("gradient norm", norm)]
    rows += [("tokens/s", speed), ("MFU, %", mfu)]
    return _by_stages(shown, "tokens", rows, 1.7)


def _line(panel: Axes, points: Curve, run: Run, **how: Any) -> None:
    if points:
        panel.plot(points.x, points.y, **{"color": COLOURS[run.stage], "linewidth": 1.4, **how})


def _say(panel: Axes, text: str) -> None:
    panel.text(0.5, 0.5, text, ha="center", va="center", transform=panel.transAxes, color=GREY, fontsize=9)


# ---- the stages that learn from answers


def preference(run: Run) -> bytes | None:
    """DPO: margin, accuracy, log-probabilities of the answers, in training and on held-out pairs."""
    train, held_out = run.log.figures.get("train", []), run.log.figures.get("preference", [])
    if not train and not held_out:
        return None
    with style():
        figure = new_figure(2.9)
        for panel, name, title in zip(
            figure.subplots(1, 3),
            ("margin", "accuracy", ""),
            ("margin", "accuracy", "log-probability (pale: training)"),
            strict=True,
        ):
            panel.set_title(title)
            panel.set_xlabel("step")
            if name:
                _line(panel, curve(train, name), run, label="training")
                _line(panel, curve(held_out, name), run, label="held-out", **HELD_OUT)
                panel.axhline(0.5 if name == "accuracy" else 0.0, color=GREY, linewidth=0.8, linestyle=":")
            else:
                for lines, marker in ((train, ""), (held_out, "o")):
                    for side, how in (("chosen", "-"), ("rejected", "--")):
                        label = side if lines is (held_out or train) else None
                        form = {"linestyle": how, "marker": marker, "markersize": 3.5, "label": label}
                        colour = {"color": "black"} if marker else {"alpha": 0.6}
                        _line(panel, curve(lines, f"{side}_log_probability"), run, **form, **colour)
            panel.legend(frameon=False)
        return png(figure)


_HEALTH: Sequence[tuple[str, Mapping[str, str]]] = (
    ("reward", {"reward": "training"}),
    ("groups without variance", {"without_variance": "training"}),
    ("length of an answer, tokens", {"length": "training"}),
    ("answers cut at the limit", {"cut": "training"}),
    ("entropy, nats a token", {"entropy": "training"}),
    ("drawing and training apart", {"probability_error": "relative error", "kl": "KL"}),
)
_SHARES = {"groups without variance", "answers cut at the limit"}


def reinforcement(run: Run) -> bytes | None:
    """RL: reward with the held-out one and its errors, and what tells whether anything is learned."""
    answers, held_out, train = (run.log.figures.get(name, []) for name in ("answers", "held_out", "train"))
    if not answers and not held_out:
        return None
    with style():
        figure = new_figure(5.4)
        for panel, (title, names) in zip(figure.subplots(2, 3).flat, _HEALTH, strict=True):
            panel.set_title(title)
            panel.set_xlabel("step")
            for number, (name, label) in enumerate(names.items()):
                lines = answers if any(name in line for line in answers) else train
                _line(panel, curve(lines, name), run, linestyle="--" if number else "-", label=label)
                points = curve(held_out, name, most=len(held_out))
                _line(panel, points, run, label="held-out", **HELD_OUT)
                if name == "reward" and points:
                    errors = [2 * (line.get("reward_error") or 0.0) for line in held_out][: len(points.x)]
                    panel.errorbar(points.x, points.y, yerr=errors, color="black", fmt="none", capsize=2)
            if title in _SHARES:
                panel.set_ylim(-0.03, 1.03)
            if len(panel.lines) > 1:
                panel.legend(frameon=False)
        return png(figure)
