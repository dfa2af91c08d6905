"""A report (`iberis report`) as part of an export's model card: its front matter, its text, its pictures.

The report's folder is read as files alone: report.md, and report.json, which says what runs it is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megatron_iberis.config import Recipe
from megatron_iberis.config.stage import LABELS, identity_of, stage_of
from megatron_iberis.errors import InputError
from megatron_iberis.run_folder import REPORT, REPORT_FACTS

_FRONT_MATTER = re.compile(r"---\n(.*?\n)---\n", re.DOTALL)
_FENCE = re.compile(r"(`{3,}|~{3,})")


@dataclass(frozen=True)
class CardPart:
    """What a report adds to the model card of one of its runs. pictures: by file name."""

    front_matter: Mapping[str, Any]
    text: str
    pictures: Mapping[str, bytes]

    def joined(self, card: str) -> str:
        """The card with the report's front matter in the place of its own, and the report below it.

        What the card's front matter has and the report's has not stays.
        """
        own, body = _split(card)
        merged = yaml.safe_dump({**own, **self.front_matter}, sort_keys=False, allow_unicode=True, width=1000)
        return f"---\n{merged}---\n{body.rstrip()}\n\n{self.text}"


@dataclass(frozen=True)
class Reported:
    """A report as it lies in a folder. runs: what report.json says of each."""

    folder: Path
    name: str
    front_matter: Mapping[str, Any]
    body: str
    runs: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, bytes]

    def of(self, recipe: Recipe, step: int, checkpoint: Path) -> CardPart:
        """The part for a checkpoint of one of its runs; scores stand in the index where they are of this very step.

        InputError if it is of no run that the report is about, or of a later step than the report knows.
        """
        identity, stage = identity_of(recipe), LABELS[stage_of(recipe)]
        run = next((each for each in self.runs if each["identity"] == identity), None)
        if run is None or step > run["steps"]:
            about = ", ".join(f"{each['label']} up to step {each['steps']:,}" for each in self.runs)
            raise InputError(
                f"{checkpoint} (stage {stage}, step {step:,}) is of no run that the report in {self.folder} is about "
                f"({about}): write a report that includes its run (iberis report), or leave --report out."
            )
        values = {name: value for name, value in self.front_matter.items() if name != "model-index"}
        results = [each["result"] for each in run["results"] if each["step"] == step]
        if results:
            values["model-index"] = [{"name": self.name, "results": results}]
        return CardPart(values, _one_level_down(self.body).strip() + "\n", self.pictures)


def read_report(folder: Path) -> Reported:
    """The report in a folder. InputError if there is none, or not the whole of it."""
    try:
        front_matter, body = _split((folder / REPORT).read_text(encoding="utf-8"))
        facts = json.loads((folder / REPORT_FACTS).read_bytes())
        for run in facts["runs"]:
            _ = run["label"], int(run["steps"]), run["identity"], [each["step"] for each in run["results"]]
        names = [str(name) for name in facts["pictures"]]
        if any(Path(name).name != name or Path(name).suffix != ".png" for name in names):
            raise ValueError
        pictures = {name: (folder / name).read_bytes() for name in names}
        return Reported(folder, str(facts["name"]), front_matter, body, facts["runs"], pictures)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no whole report ({Path(str(error.filename)).name} is missing): write it with "
            "iberis report --output, or leave --report out."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        raise InputError(f"the report in {folder} is damaged: write it again with iberis report.") from None


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a card."""
    found = _FRONT_MATTER.match(card)
    if not found:
        raise ValueError("a card begins with its front matter")
    return dict(yaml.safe_load(found[1])), card[found.end() :]


def _one_level_down(markdown: str) -> str:
    """The text with each heading a level lower; lines in fenced blocks are no headings."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        marks = _FENCE.match(line)
        if marks and not fence:
            fence = marks[1]
        elif fence and line.strip() == fence:
            fence = ""
        elif not fence and re.match(r"#{1,5} ", line):
            line = "#" + line
        lines.append(line)
    return "\n".join(lines)
