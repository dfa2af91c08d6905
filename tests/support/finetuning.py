"""Small runs of mid-training and finetuning for tests, on ranks that are there already."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.stages.conversation_inputs import open_conversations
from megatron_iberis.stages.finetune import run
from megatron_iberis.tokenizer.chat import Message
from tests.conftest import Corpus
from tests.support.runs import SMALL

WORDS = ["the", "river", "runs", "down", "to", "a", "cold", "sea", "why", "川は", "海へ", "流れる", "夜"]


def said(user: str, assistant: Any) -> list[Message]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def conversations(count: int, seed: int = 0) -> list[list[Message]]:
    """Of very different lengths, some with several turns, a call of the calculator, a system message."""
    draw, found = Random(seed), []
    for number in range(count):
        messages: list[Message] = []
        if number % 5 == 0:
            messages.append({"role": "system", "content": "be short"})
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            answer: Any = " ".join(draw.choices(WORDS, k=draw.choice((1, 2, 3, 9, 14))))
            if number % 7 == 0:
                answer = [
                    {"type": "text", "text": answer},
                    {"type": "python", "text": "1+1"},
                    {"type": "python_output", "text": "2"},
                ]
            messages += said(" ".join(draw.choices(WORDS, k=draw.randint(1, 6))), answer)
        found.append(messages)
    return found


def write(path: Path, rows: Iterable[list[Message]]) -> Path:
    """A .jsonl file of conversations."""
    lines = [json.dumps({"messages": messages}, ensure_ascii=False) for messages in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def words(corpus: Corpus, folder: Path, start: Path | str, data: Path, **settings: str) -> list[str]:
    """Command-line overrides of the recipe sft_demo for a run of a few seconds; `section__field` sets more."""
    chosen = {
        **SMALL,
        "model.sequence_length": "64",
        "train.batch_tokens": "512",
        "train.steps": "0",
        "train.dtype": "fp32",
        "optimizer.lr_fraction": "1",
        "evaluation.sample_every": "0",
        "checkpoint.every": "0",
        "tasks.mixture": str(data),
        "tasks.val": "",
        "tasks.cache": str(folder.parent / "cache"),
        "run.start_from": str(start),
        "run.folder": str(folder),
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return [f"--{key}={value}" for key, value in chosen.items()]


def recipe(overrides: list[str], name: str = "sft_demo") -> Recipe:
    return load_recipe(name, overrides)


def finetune(overrides: list[str], name: str = "sft_demo") -> int:
    """Runs on a rank: the stage as the launcher would call it."""
    inputs = open_conversations(recipe(overrides, name))
    return run(inputs.recipe, inputs)
