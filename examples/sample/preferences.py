"""Pairs of answers for the demo's preference optimisation: a right one and a wrong one, in both languages.

Wrong is the answer to another question of the same kind, or the right one misspelled. No prompt of the pairs that are
held out is among those that are trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from examples.sample.conversations import EXCHANGES, Exchange
from megatron_iberis.storage.atomic import write_atomic

PAIRS, HELD_OUT = 600, 120
"""Of each language."""
Pair = dict[str, str]


def misspelled(text: str, draw: Random) -> str:
    """The text with three letters in wrong places: each changes with the one behind it, or is said twice."""
    letters = list(text)
    for _ in range(3):
        place = draw.randrange(len(letters) - 1)
        if letters[place] != letters[place + 1] and draw.random() < 0.5:
            letters[place : place + 2] = letters[place + 1], letters[place]
        else:
            letters.insert(place, letters[place])
    return "".join(letters)


def pair(language: str, draw: Random) -> Pair:
    """One of a question whose answer is a text."""
    while True:
        kind: Callable[[Random], Exchange] = draw.choice(EXCHANGES[language])
        (question, right), (_, other) = kind(draw), kind(draw)
        if isinstance(right, str) and len(right) > 3:
            wrong = other if draw.random() < 0.5 else misspelled(right, draw)
            if wrong != right:
                return {"prompt": question, "chosen": right, "rejected": wrong}


def write_preferences(folder: Path, seed: int = 0) -> dict[str, int]:
    """Writes train.jsonl and val.jsonl, each whole or not at all; the number of pairs in each."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs: dict[str, list[Pair]] = {"val": [], "train": []}
    for language in EXCHANGES:
        draw = Random(f"{seed} {language} preferences")
        held_out = [pair(language, draw) for _ in range(HELD_OUT)]
        asked = {each["prompt"] for each in held_out}
        drawn = [pair(language, draw) for _ in range(4 * PAIRS)]
        pairs["val"] += held_out
        pairs["train"] += [each for each in drawn if each["prompt"] not in asked][:PAIRS]
    for name, rows in pairs.items():
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomic(folder / f"{name}.jsonl", content.encode())
    return {name: len(rows) for name, rows in pairs.items()}
