"""The published figures of Saint Iberis, and what is to be known of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from megatron_iberis.config import ModelConfig, Recipe, load_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIGURES = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class Published:
    """A model that its authors have published. scores: by task and stage, from 0 to 1. recipe: ours, of its sizes."""

    name: str
    short: str
    recipe: str
    source: str
    data: str
    scores: Mapping[str, Mapping[str, float]]
    machine: str = ""
    wall_clock_hours: float = 0.0

    def of(self, stage: str) -> Recipe | None:
        """The published recipe of a stage, where there was one."""
        names = {
            "base": self.recipe,
            "mid": f"mid_{self.recipe}",
            "sft": f"sft_{self.recipe}",
            "rl": f"rl_{self.recipe}",
        }
        return load_recipe(names[stage]) if stage in names else None

    def last(self, task: str) -> float | None:
        """The figure of the last stage that has one."""
        found = self.scores.get(task, {})
        return next((found[stage] for stage in ("sft", "mid", "base") if stage in found), None)


@cache
def published_models() -> tuple[Published, Published]:
    """The English one, and the Japanese-English one."""
    values: dict[str, Any] = tomllib.loads(FIGURES.read_text(encoding="utf-8"))
    return Published(**values["en"]), Published(**values["jp"])


def nearer(model: ModelConfig) -> Published:
    """Which of the two a model is built like: the Japanese-English one has a norm inside SLC2."""
    english, japanese = published_models()
    return japanese if model.inner_norm else english


TO_KNOW = """\
The published figures stand here as their authors give them, and with thanks: without their work there would be no
Saint Iberis. To compare them fairly, a reader should know what we found while we followed it.

* Scores of written answers (GSM8K, HumanEval, SpellingBee, and ChatCORE, which they are part of) may **understate**
  the published models. The program that produced them keeps no state of the convolutions between two decoded tokens,
  so that an answer is written by a slightly different model than the one that was trained. The programs here keep it.
* ChatCORE is a mean of six tasks, of which the published tables list five. By those five alone it would be 8.2
  (English) and 2.7 (Japanese and English) after SFT; the sixth, SpellingBee, brings the rest. The English README sets
  its mean of six beside one of nanochat's of five, so that these two are not of the same thing. Here ChatCORE stands
  with and without SpellingBee.
* The README of d12 names 1 4 7 10 11 14 15 as its attention layers. The total of parameters that it gives
  (376,240,128, which is right) belongs to layers 1 4 7 10 13 15, and so does the published code.
* Published bits per byte are not listed: most tokens of a single byte were counted there as three bytes, which makes
  the figures lower, for Japanese above all, so that they cannot be compared with those of this report."""
