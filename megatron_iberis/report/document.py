"""The report as a whole: its sections in their order, its pictures beside it, one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_iberis import __version__
from megatron_iberis.config.stage import TITLES
from megatron_iberis.report import bars, drawing, plots, tables, training
from megatron_iberis.report.card import card_values, facts
from megatron_iberis.report.differences import differences
from megatron_iberis.report.markdown import block, front_matter, inline, table
from megatron_iberis.report.published import TO_KNOW, nearer, published_models
from megatron_iberis.report.records import Run
from megatron_iberis.report.settings import own_settings
from megatron_iberis.report.summary import HOW_TO_READ, introduction
from megatron_iberis.run_folder import REPORT, REPORT_FACTS
from megatron_iberis.storage.atomic import json_line, write_atomic


@dataclass(frozen=True)
class Report:
    """The text, and the pictures that it names, by their file names."""

    text: str
    pictures: Mapping[str, bytes]
    facts: bytes


@dataclass
class _Writer:
    """Gathers sections; an empty one leaves no heading."""

    draws: bool
    parts: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def section(self, title: str, *texts: str) -> None:
        """A heading and what stands below it, as far as there is anything."""
        if found := [text for text in texts if text]:
            self.parts += [f"## {title}", *found]

    def picture(self, name: str, about: str, png: bytes | None) -> str:
        """The place of a picture in the text; it is kept under its name."""
        if png is None:
            return ""
        self.pictures[name] = png
        return f"![{about}]({name})"


def compose(runs: Sequence[Run], name: str, timings: Mapping[str, float], price: float | None) -> Report:
    """The report of runs of one model. timings: seconds by step; price: dollars an hour of the machine."""
    writer = _Writer(drawing.installed())
    writer.parts += [f"# {inline(name)}", introduction(runs, name)]
    writer.section("How to read the numbers", HOW_TO_READ)
    _scores(writer, runs)
    _curves(writer, runs)
    writer.section("What it writes", _SAMPLES if (texts := training.samples_section(runs)) else "", texts)
    _data(writer, runs)
    _learning_from_answers(writer, runs)
    _time_and_machine(writer, runs, timings, price)
    writer.section("What differs from the published run", differences(runs, nearer(runs[0].recipe.model)))
    writer.section("About the published figures", _published_table(), TO_KNOW)
    _recipes(writer, runs)
    text = front_matter(card_values(runs, name)) + "\n" + "\n\n".join(writer.parts) + "\n"
    return Report(text, writer.pictures, json_line(facts(runs, name, list(writer.pictures)), indent=2))


_SAMPLES = (
    "Texts of the last samples of each stage: the likeliest token each time, cut where the sample ends. A base model "
    "continues the words that it is given, a chat model answers them."
)


def _scores(writer: _Writer, runs: Sequence[Run]) -> None:
    if not tables.with_scores(runs) and not any(run.evaluations.harness for run in runs):
        return writer.section("Scores", "None of the runs has been evaluated (`iberis eval`).")
    model = nearer(runs[0].recipe.model)
    writer.section(
        "Scores", " ".join(tables.how_measured(runs)), tables.headline_table(runs), tables.japanese_mean_note(runs)
    )
    for family in tables.FAMILIES:
        if not (shown := tables.family_table(family, runs)):
            continue
        writer.parts += [f"### {family.title}", family.about, shown]
        if writer.draws:
            file = f"scores_{family.kind}_{'ja' if 'Japanese' in family.title else 'en'}.png"
            mark = f"{model.short}, last stage"
            png = bars.scores(tables.groups_of(family, runs, model), mark)
            writer.parts.append(writer.picture(file, f"Scores: {family.title}", png))
    if bits := tables.bits_table(runs):
        writer.parts += ["### Bits per byte", _BITS, bits]
    if harness := tables.harness_table(runs):
        writer.parts += [
            "### By lm-evaluation-harness",
            "As it tells them: from 0 to 1 where they are shares.",
            harness,
        ]
    return None


_BITS = (
    "Of the right answers of tasks it moves long before the score does: on tasks whose score is at chance, it tells "
    "whether the model comes nearer."
)


def _curves(writer: _Writer, runs: Sequence[Run]) -> None:
    if not writer.draws:
        return
    tokens = writer.picture("curves_tokens.png", "Loss and bits per byte by tokens", plots.curves(runs, "tokens"))
    hours = writer.picture("curves_hours.png", "Loss and bits per byte by hours", plots.curves(runs, "hours"))
    course = writer.picture("training.png", "Learning rate, gradient norm, speed", plots.training(runs))
    writer.section("Curves", _CURVES if tokens else "", tokens, hours, course, training.skipped_sentence(runs))


_CURVES = (
    "A column is a stage; short stages are drawn wider than their share. Thin lines are single steps, dots held-out "
    "text. That differs from stage to stage: a jump between two columns is one of the text, not of the model."
)


def _data(writer: _Writer, runs: Sequence[Run]) -> None:
    writer.parts.append("## Data")
    for run in runs:
        writer.parts += [f"### {inline(run.label)}: {TITLES[run.stage]}", training.data_section(run)]
        if run.overlap:
            writer.parts += ["Evaluation items in it (`iberis data overlap`):", training.overlap_section(run)]
    if not any(run.overlap for run in runs):
        writer.parts.append("Whether evaluation items are in the data was not counted (`iberis data overlap`).")


def _learning_from_answers(writer: _Writer, runs: Sequence[Run]) -> None:
    for run in runs:
        if run.stage not in ("dpo", "rl"):
            continue
        draw, told = (
            (plots.preference, training.preference_section)
            if run.stage == "dpo"
            else (plots.reinforcement, training.reinforcement_section)
        )
        number = sum(other.stage == run.stage for other in runs[: runs.index(run)])
        file = f"{run.stage}{f'_{number + 1}' if number else ''}.png"
        shown = writer.picture(file, f"{run.label}: its figures by step", draw(run)) if writer.draws else ""
        writer.section(f"{inline(run.label)}: is it healthy", told(run), shown)


def _time_and_machine(
    writer: _Writer, runs: Sequence[Run], timings: Mapping[str, float], price: float | None
) -> None:
    said = [_CLOCK, training.stages_table(runs, price)]
    if timings:
        said += ["The whole run, by the clock on the wall:", training.timings_table(timings, price)]
    if price:
        said.append(f"Costs are hours times ${price:,.2f}, the price of an hour that was given for this report.")
    writer.section("Time and machine", *said, training.machine_table(runs))


_CLOCK = (
    "Wall clock is the sum of all logged steps (waiting for data included) and validations. Pauses, starting, "
    "saving, evaluations, and steps that were done again after a stop are not in it. Tokens/s is the median of a "
    "step, MFU the mean part of the machine's peak that the model's own arithmetic used, memory the peak of one rank."
)


def _published_table() -> str:
    models = published_models()
    names = list(dict.fromkeys(name for model in models for name in model.scores))
    titles = {"core": "CORE", "chat_core": "ChatCORE"}
    rows = [[titles.get(name, name), *(tables.published_cell(model, name) for model in models)] for name in names]
    rows.append(["wall clock", *(f"{m.wall_clock_hours:g} h on {m.machine}" if m.machine else "" for m in models)])
    sources = [f"[{model.name}]({model.source})" for model in models]
    return table(["score x 100", *sources], rows)


def _recipes(writer: _Writer, runs: Sequence[Run]) -> None:
    texts = []
    for run in runs:
        texts += [f"### {inline(run.label)}", block(own_settings(run.recipe), "toml")]
    writer.section(
        "Recipes",
        "The architecture, and each stage's settings that are not the usual ones (`iberis recipe` shows all); of "
        f"paths the last names. megatron\\_iberis {__version__} wrote this report.",
        *texts,
    )


def write(report: Report, folder: Path, page: str | None) -> list[Path]:
    """Writes the report, each file whole; page: the same as one HTML file. Returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = dict(report.pictures) | {REPORT_FACTS: report.facts}
    if page is not None:
        contents["report.html"] = page.encode()
    contents[REPORT] = report.text.encode()
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]
