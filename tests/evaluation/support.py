"""A model with random weights over a small tokenizer, its checkpoint, a bundle, and models that need no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_iberis.evaluation.benchmark import Marked
from megatron_iberis.evaluation.questions import Answer, Likelihood, Question, Reply
from megatron_iberis.tokenizer.chat import Message

HARBOUR = "The ferry leaves the harbour at"
CHOICES = [
    {"query": f"{number}. {HARBOUR}", "choices": ["half past six", "noon, or never", "the tide"], "gold": number % 3}
    for number in range(6)
]
# The first option is the beginning of the second, in tokens too.
PREFIXES = [
    {"query": f"{number}. She opened", "choices": ["the notebook", "the notebook and closed it"], "gold": number % 2}
    for number in range(4)
]
SCHEMAS = [
    {
        "context_options": [f"{number}: nobody remembered the tree", f"{number}: nobody remembered the village"],
        "continuation": "but everyone had climbed it once.",
        "gold": number % 2,
    }
    for number in range(4)
]
CONTINUATIONS = [
    {"context": f"駅前の小さな店で、{number}匹の猫へ ", "continuation": "声をかけた"} for number in range(4)
]
TASKS = {
    "ferry": ("multiple_choice", 2, CHOICES, 33.3, "\nAnswer: "),
    "notebook": ("multiple_choice", 0, PREFIXES, 50, None),
    "walnut": ("schema", 1, SCHEMAS, 50, None),
    "shop": ("language_modeling", 1, CONTINUATIONS, 0, None),
}


def write_bundle(folder: Path) -> Path:
    """In the published form; returns the folder."""
    (folder / "eval_data" / "made").mkdir(parents=True)
    config, table = ["icl_tasks:"], ["Eval Task,Task Category,Random baseline"]
    for name, (kind, shots, rows, baseline, delimiter) in TASKS.items():
        config += ["-", f"  label: {name}", f"  dataset_uri: made/{name}.jsonl", f"  num_fewshot: [{shots}, 9]"]
        config += [f"  icl_task_type: {kind}"]
        config += [f"  continuation_delimiter: {json.dumps(delimiter)}"] if delimiter else []
        table.append(f'{name},"made, here",{baseline}')
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "eval_data" / "made" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "core.yaml").write_text("\n".join(config), encoding="utf-8")
    (folder / "eval_meta_data.csv").write_text("\n".join(table), encoding="utf-8")
    return folder


class Numbers:
    """Items 0 to n - 1: is the first likelihood larger? Its replies are `Counting`'s."""

    chance = 0.5

    def __init__(self, n: int, name: str = "numbers", gold: int = 0) -> None:
        self.n, self.name, self.gold, self.settings = n, name, gold, {"kind": "numbers"}

    def __len__(self) -> int:
        return self.n

    def ask(self, index: int) -> list[Question]:
        return [Likelihood((1, index, option), 2) for option in (7, 8)]

    def mark(self, index: int, replies: Sequence[Reply]) -> Marked:
        best = max((0, 1), key=lambda i: replies[i].total)
        return Marked(float(best == self.gold), str(best), str(self.gold), -replies[0].total, 3)


@dataclass(frozen=True)
class Counting:
    """In the place of `running.Model`: no torch, and each question that is asked leaves a line in `asked`."""

    asked: Path
    processes: int = 1
    batch: int = 1
    context: int = 3

    def open(self) -> Callable[[Sequence[Sequence[Question]]], list[list[Reply]]]:
        def ask(items: Sequence[Sequence[Question]]) -> list[list[Reply]]:
            with self.asked.open("a") as file:
                file.writelines(f"{questions[0].ids[1]}\n" for questions in items)
            return [[Reply((-math.sin(q.ids[1] + q.ids[2]) - 2,)) for q in questions] for questions in items]

        return ask

    def items(self) -> list[int]:
        return [int(line) for line in self.asked.read_text().split()] if self.asked.exists() else []


class Said:
    """A task of rows that are given, whose mark is whether the completion is the last message's text."""

    language = "en"

    def __init__(self, name: str, kind: str, rows: Sequence[Any], chance: float = 0.0) -> None:
        self.name, self.kind, self.chance, self._rows = name, kind, chance, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index]

    def mark(self, row: Any, completion: str) -> Any:
        from megatron_iberis.tasks import Mark

        return Mark(float(completion == row.messages[-1]["content"]), completion)


def turns(question: str, answer: str) -> tuple[Message, ...]:
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def answers_of(questions: Sequence[Question]) -> list[Answer]:
    return [question for question in questions if isinstance(question, Answer)]
