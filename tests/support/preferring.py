"""Small runs that learn preferences, on ranks that are there already."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron_iberis.config import load_recipe
from megatron_iberis.stages.preference import run
from megatron_iberis.stages.preference_inputs import open_pairs
from tests.support.runs import SMALL

_TEXT = (
    "harbour ferry walnut village notebook window garden river morning letter station market island winter "
    "kitchen captain basket mirror thunder blanket lantern orchard pebble whistle cottage feather ladder "
    "meadow needle oyster puddle ribbon saddle timber valley willow anchor button candle dragon engine forest "
    "guitar hammer insect jacket kettle lizard magnet napkin orange pencil rabbit scarf teapot umbrella violin "
    "wagon yogurt bridge cloud"
)
WORDS = _TEXT.split()


def spelled_pairs(words: Iterable[str], seed: int = 0) -> list[dict[str, Any]]:
    """Of each word how it is spelled, and with wrong letters, of a few kinds."""
    draw, found = random.Random(seed), []
    for word in words:
        wrong = list(word)
        for place in draw.sample(range(len(word)), 3):
            wrong[place] = draw.choice("qxz")
        found.append({"prompt": f"Spell {word}", "chosen": "-".join(word), "rejected": "-".join(wrong)})
    return found


def write_pairs(path: Path, pairs: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


def words_for(start: Path, folder: Path, pairs: Path, **settings: str) -> list[str]:
    """Command-line overrides of the demo's recipe for a run of a few seconds; `section__field` sets more."""
    chosen = {
        **{name: value for name, value in SMALL.items() if name.startswith("model.")},
        "model.sequence_length": "128",
        "train.batch_tokens": "1024",
        "train.device_batch": "4",
        "train.dtype": "fp32",
        "optimizer.lr": "3e-3",
        "evaluation.every": "0",
        "run.start_from": str(start),
        "run.folder": str(folder),
        "preference.data": str(pairs),
        "preference.val": "",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return [f"--{key}={value}" for key, value in chosen.items()]


def prefer(overrides: list[str]) -> int:
    """Runs on a rank: the stage as the launcher would call it."""
    inputs = open_pairs(load_recipe("dpo_demo", overrides))
    return run(inputs.recipe, inputs)
