"""The tables of scores: tasks below each other, stages side by side, what was published beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_iberis.config.stage import LABELS
from megatron_iberis.evaluation.chat import CHAT_CORE
from megatron_iberis.evaluation.core import TASKS_OF_CORE
from megatron_iberis.report.bars import Bar, Group
from megatron_iberis.report.evaluations import Kind, Scored
from megatron_iberis.report.markdown import inline, table
from megatron_iberis.report.published import Published, published_models
from megatron_iberis.report.records import Run
from megatron_iberis.report.words import listed, measured, points, score


@dataclass(frozen=True)
class Family:
    """Tasks that stand in one table. belongs: whether a task of the kind is one of them."""

    title: str
    about: str
    kind: Kind
    belongs: Callable[[str, Mapping[str, Any]], bool]
    published: bool = False


_CORE = "How well English text goes on: the tasks of CORE, a set of 22 that base models are compared by."
_CHAT = "Questions in a conversation. A choice is the likeliest letter; a written answer is read and marked."
_JA_TEXT = (
    "Tasks of the JA mean, as text that goes on: JCommonsenseQA and XWinograd by likelihood, JSQuAD and NIILC by the "
    "characters that a short answer has in common with the right one (F1)."
)
FAMILIES = (
    Family("English, in conversation", _CHAT, "chat", lambda n, s: s.get("language") != "ja", published=True),
    Family("Japanese, as text that goes on", _JA_TEXT, "base", lambda n, s: s.get("language") == "ja"),
    Family("Japanese, in conversation", _CHAT, "chat", lambda n, s: s.get("language") == "ja"),
    Family("English, as text that goes on (CORE)", _CORE, "base", lambda n, s: "baseline_v1" in s),
)


def tasks_of(family: Family, runs: Sequence[Run]) -> dict[str, dict[str, Scored]]:
    """task -> label of a run -> what it scored, those of ChatCORE first."""
    found: dict[str, dict[str, Scored]] = {}
    for run in runs:
        for name, scored in run.evaluations.tasks[family.kind].items():
            if scored.measure.score is not None and family.belongs(name, scored.measure.settings):
                found.setdefault(name, {})[run.label] = scored
    first = [name for name in CHAT_CORE if name in found]
    return {name: found[name] for name in [*first, *(name for name in found if name not in first)]}


def with_scores(runs: Sequence[Run]) -> list[Run]:
    """The runs that have a column in tables of scores."""
    return [run for run in runs if any(run.evaluations.tasks.values())]


def headline_table(runs: Sequence[Run]) -> str:
    """CORE by both sets of baselines, the JA mean, ChatCORE with and without SpellingBee."""
    columns, published = with_scores(runs), published_models()
    of = {run.label: run.evaluations.summaries() for run in columns}
    rows: list[list[str]] = []

    def add(title: str, name: str, value: str, error: str, published_as: str = "") -> None:
        cells = [
            score(of[r.label][name][value], of[r.label][name][error]) if name in of[r.label] else "" for r in columns
        ]
        if any(cells):
            rows.append([title, *cells, *(published_cell(each, published_as) for each in published)])

    counts = sorted({int(each["core"]["tasks"]) for each in of.values() if "core" in each})
    number = " or ".join(map(str, counts))
    add(f"CORE v1, {number} of {TASKS_OF_CORE} tasks", "core", "v1", "v1_standard_error", "core")
    add("CORE v2 (corrected baselines)", "core", "v2", "v2_standard_error")
    add("JA mean", "japanese", "score", "standard_error")
    add("ChatCORE", "chat_core", "score", "standard_error", "chat_core")
    add("ChatCORE without SpellingBee", "chat_core", "without_spellingbee", "without_spellingbee_standard_error")
    return table(
        ["mean of tasks", *(inline(run.label) for run in columns), *(each.short for each in published)], rows
    )


def japanese_mean_note(runs: Sequence[Run]) -> str:
    """Which tasks the JA mean is of, where that is not all of them."""
    notes = []
    for run in with_scores(runs):
        found = run.evaluations.summaries().get("japanese", {})
        if found.get("left_out"):
            notes.append(
                f"The JA mean of {inline(run.label)} is that of {listed(found['tasks'])}; left out, not being above "
                f"an empty answer: {listed(found['left_out'])}."
            )
    return " ".join(notes)


def published_cell(model: Published, task: str) -> str:
    """Its figures with their stages: "23.48 mid, 23.22 SFT"."""
    found = model.scores.get(task, {})
    return ", ".join(f"{points(value)} {LABELS[stage]}" for stage, value in found.items())  # type: ignore[index]


def family_table(family: Family, runs: Sequence[Run]) -> str:
    """The tasks of a family; a line more for each score by another rule."""
    tasks = tasks_of(family, runs)
    columns = [run for run in runs if any(run.label in scores for scores in tasks.values())]
    published = [each for each in published_models() if family.published and any(t in each.scores for t in tasks)]
    rows = []
    for name, scores in tasks.items():
        some = [scores[run.label] for run in columns if run.label in scores]
        chances = _span([100 * scored.measure.chance for scored in some], ".1f")
        numbers = _span([scored.measure.n for scored in some], ",")
        cells = [measured(scores[r.label].measure) if r.label in scores else "" for r in columns]
        own = [published_cell(each, name) for each in published]
        rows.append([inline(name), *cells, chances, numbers, *own])
        for title, values in _other_rows(scores):
            others = [points(values.get(run.label)) for run in columns]
            rows.append([f"{inline(name)}, {inline(title)}", *others, " ", " ", *(" " for _ in published)])
    head = ["task", *(inline(run.label) for run in columns), "chance", "n", *(each.short for each in published)]
    return table(head, rows)


def _span(values: Sequence[float], form: str) -> str:
    """One number, or from the least to the largest."""
    shown = list(dict.fromkeys(format(value, form) for value in sorted(values)))
    return shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"


_RULES = {"gsm8k_strict": "read strictly, as published figures were"}


def _other_rows(scores: Mapping[str, Scored]) -> Iterable[tuple[str, dict[str, float]]]:
    """Scores by other rules: (rule, by run)."""
    found: dict[str, dict[str, float]] = {}
    for label, scored in scores.items():
        if scored.measure.balanced is not None:
            found.setdefault("answers balanced", {})[label] = scored.measure.balanced
        for rule, value in scored.measure.others.items():
            found.setdefault(_RULES.get(rule, rule.replace("_", " ")), {})[label] = value
    return found.items()


def bits_table(runs: Sequence[Run]) -> str:
    """Bits per byte: of held-out text by language, then of right answers, which move before scores do."""
    found: dict[tuple[bool, str], dict[str, Scored]] = {}
    for run in runs:
        for kind, tasks in run.evaluations.tasks.items():
            for name, scored in tasks.items():
                if scored.measure.bits_per_byte is not None:
                    text = scored.measure.settings.get("kind") == "text"
                    how = "" if text or kind == "chat" else ", as text that goes on"
                    title = (
                        f"held-out text, {name.removeprefix('text-')}" if text else f"right answers of {name}{how}"
                    )
                    found.setdefault((not text, title), {})[run.label] = scored
    columns = [run for run in runs if any(run.label in scores for scores in found.values())]
    rows = [
        [inline(title), *(_bits(scores.get(run.label)) for run in columns)]
        for (_, title), scores in sorted(found.items(), key=lambda each: each[0][0])
    ]
    return table(["bits per byte (less is better)", *(inline(run.label) for run in columns)], rows)


def _bits(scored: Scored | None) -> str:
    if scored is None or scored.measure.bits_per_byte is None:
        return ""
    error = scored.measure.bits_error
    return f"{scored.measure.bits_per_byte:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def harness_table(runs: Sequence[Run]) -> str:
    """What lm-evaluation-harness measured, as it tells it."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for run in runs:
        for each in run.evaluations.harness:
            error = "" if each.error is None else f" ± {each.error:.4f}"
            found.setdefault((each.task, each.metric), {})[run.label] = f"{each.value:.4f}{error}"
    columns = [run for run in runs if run.evaluations.harness]
    rows = [
        [inline(task), inline(metric), *(values.get(run.label, "") for run in columns)]
        for (task, metric), values in found.items()
    ]
    return table(["task", "metric", *(inline(run.label) for run in columns)], rows, left=2)


def how_measured(runs: Sequence[Run]) -> list[str]:
    """Sentences: which checkpoints, limits, levels of the sandbox, and what was longer than the context."""
    said, limits, levels = [], [], dict[str, list[str]]()
    for run in with_scores(runs):
        steps = sorted({scored.step for scored in run.evaluations.all})
        said.append(f"{inline(run.label)} after {' and '.join(f'{step:,}' for step in steps)} steps")
        own = sorted({scored.limit for scored in run.evaluations.all if scored.limit})
        if own:
            limits.append(f"{inline(run.label)} {' or '.join(f'{limit:,}' for limit in own)}")
        for scored in run.evaluations.all:
            if level := scored.measure.settings.get("sandbox"):
                levels.setdefault(str(level), []).append(f"{inline(scored.measure.name)} of {inline(run.label)}")
    sentences = [f"Measured: {', '.join(said)}."] if said else []
    if limits:
        sentences.append(f"Not all items of each task were asked, but at most (`--limit`): {', '.join(limits)}.")
    for level, names in levels.items():
        sentences.append(f"Programs that the model wrote ran in the sandbox at level `{level}` ({', '.join(names)}).")
    measures = [each.measure for run in runs for each in run.evaluations.all if each.measure.score is not None]
    beyond = {measure.name for measure in measures if measure.beyond_context}
    if beyond:
        sentences.append(
            "Some items are longer than the rows that the model was trained on, which makes them harder for it: of "
            f"{_some(sorted(beyond))}."
        )
    return sentences


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first of them, and how many more there are."""
    more = [f"{len(names) - most} other tasks"] if len(names) > most + 1 else []
    return listed([*map(inline, names[: most if more else None]), *more])


def groups_of(family: Family, runs: Sequence[Run], model: Published) -> list[Group]:
    """The family's tasks as bars, with the published model's last figures."""
    groups = []
    for name, scores in tasks_of(family, runs).items():
        measures = [(run, scores[run.label].measure) for run in runs if run.label in scores]
        stages = [run.stage for run, _ in measures]
        bars = [
            Bar(run.label, run.stage, measure.score or 0.0, measure.error or 0.0, run.stage in stages[:number])
            for number, (run, measure) in enumerate(measures)
        ]
        published = model.last(name) if family.published else None
        groups.append(Group(name, bars, measures[-1][1].chance, published))
    return groups
