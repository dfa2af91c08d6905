"""The Japanese tasks on which a model of 0.4 B can be told from chance, asked as texts to go on, and their mean.

* JCommonsenseQA: the option whose text is the likeliest after the question (letters are too much at this size).
* XWinograd: the candidate after which the rest of the sentence is the likeliest. No examples.
* JSQuAD, NIILC: what the model writes in one line, by character F1. Their chance is an empty answer's score.

Four examples before each, from the other rows by Random(1234 + item), as CORE draws them. The JA mean is the plain
mean of the centred scores; JSQuAD and NIILC are in it only if they are above an empty answer by two standard errors.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from megatron_iberis.evaluation.benchmark import Benchmark, Marked, Measure
from megatron_iberis.evaluation.chat import other_scores
from megatron_iberis.evaluation.questions import Answer, Likelihood, Question, Reply, shared_beginning
from megatron_iberis.tasks import Row, Task, open_task
from megatron_iberis.tokenizer import Tokenizer

SHOTS = 4
ANSWER_TOKENS = 64
_BY_CHOICE = {"jcommonsenseqa": 0.2, "xwinograd-ja": 0.5}
_BY_TEXT = ("jsquad", "niilc")
_KINDS = ("answer text", "schema", "short answer")


class _FromRows:
    """A task's rows, each a text with a question and, behind it, an answer. limit: rows at most, 0: all."""

    def __init__(self, task: Task, tokenizer: Tokenizer, limit: int = 0, shots: int = SHOTS) -> None:
        self.name, self._task, self._tokenizer = task.name, task, tokenizer
        self._size = min(len(task), limit) if limit else len(task)
        self._shots = min(shots, len(task) - 1)

    def __len__(self) -> int:
        return self._size

    def _before(self, index: int, text: Callable[[Row], str]) -> str:
        """The examples before an item, a blank line after each."""
        others = [i for i in range(len(self._task)) if i != index]
        drawn = random.Random(1234 + index).sample(others, self._shots)
        return "".join(text(self._task[i]) + "\n\n" for i in drawn)

    def _ids(self, text: str) -> tuple[int, ...]:
        return self._tokenizer.bos_id, *self._tokenizer.encode(text)


class TextChoice(_FromRows):
    """The option whose text is the likeliest after the question, all of its tokens together."""

    def __init__(self, task: Task, tokenizer: Tokenizer, limit: int = 0, shots: int = SHOTS) -> None:
        super().__init__(task, tokenizer, limit, shots)
        self.chance = _BY_CHOICE.get(task.name, task.chance)
        self.settings: Mapping[str, Any] = {"kind": "answer text", "language": task.language, "shots": self._shots}

    def ask(self, index: int) -> list[Question]:
        row = self._task[index]
        before = self._before(index, lambda other: _prompt(other) + other.options[other.right])
        without = self._ids(before + _prompt(row))
        whole = [self._ids(before + _prompt(row) + option) for option in row.options]
        # All from the same token on: a piece that spans the join is counted for every option or for none.
        start = min(shared_beginning([without, *whole]), min(map(len, whole)) - 1)
        return [Likelihood(ids, start) for ids in whole]

    def mark(self, index: int, replies: Sequence[Reply]) -> Marked:
        row = self._task[index]
        totals = [reply.total for reply in replies]
        best = totals.index(max(totals))
        gold = row.options[row.right]
        return Marked(
            float(best == row.right), row.options[best], gold, -totals[row.right], len(gold.encode("utf-8"))
        )


class Winograd(_FromRows):
    """The candidate after which the rest of the sentence is the likeliest."""

    def __init__(self, task: Task, tokenizer: Tokenizer, limit: int = 0) -> None:
        super().__init__(task, tokenizer, limit, 0)
        self.chance = _BY_CHOICE.get(task.name, task.chance)
        self.settings: Mapping[str, Any] = {"kind": "schema", "language": task.language, "shots": 0}

    def ask(self, index: int) -> list[Question]:
        row = self._task[index]
        sequences = [self._ids(row.more["before"] + option + row.more["after"]) for option in row.options]
        count = shared_beginning([ids[::-1] for ids in sequences])
        count = max(1, min(count, min(map(len, sequences)) - 1))
        return [Likelihood(ids, len(ids) - count) for ids in sequences]

    def mark(self, index: int, replies: Sequence[Reply]) -> Marked:
        row = self._task[index]
        totals = [reply.total for reply in replies]
        best = totals.index(max(totals))
        return Marked(float(best == row.right), row.options[best], row.options[row.right])


class ShortAnswer(_FromRows):
    """A line that the model writes, marked by the task; its chance is what an empty line gets."""

    def __init__(self, task: Task, tokenizer: Tokenizer, limit: int = 0, shots: int = SHOTS) -> None:
        super().__init__(task, tokenizer, limit, shots)
        empty = [task.mark(task[i], "").score for i in range(self._size)]
        self.chance = sum(empty) / max(1, len(empty))
        self.settings: Mapping[str, Any] = {"kind": "short answer", "language": task.language, "shots": self._shots}

    def ask(self, index: int) -> list[Question]:
        row = self._task[index]
        before = self._before(index, lambda other: _prompt(other) + other.references[0])
        prompt = self._ids(before + _prompt(row))
        whole = self._ids(before + _prompt(row) + row.references[0])
        gold = Likelihood(whole, min(shared_beginning([prompt, whole]), len(whole) - 1))
        return [Answer(prompt, ANSWER_TOKENS, ("\n",)), gold]

    def mark(self, index: int, replies: Sequence[Reply]) -> Marked:
        row = self._task[index]
        said, gold = replies[0].text.strip(), row.references[0]
        mark, others = self._task.mark(row, said), other_scores(self._task, row, said)
        return Marked(mark.score, mark.found, gold, -replies[1].total, len(gold.encode("utf-8")), others)


def _prompt(row: Row) -> str:
    passage = row.more.get("passage")
    return (f"文章：{passage}\n" if passage else "") + f"質問：{row.more['question']}\n回答："


def open_japanese(root: str, tokenizer: Tokenizer, limit: int = 0) -> dict[str, Callable[[], Benchmark]]:
    """What opens each task of the JA mean, by name."""

    def opener(name: str) -> Callable[[], Benchmark]:
        form = TextChoice if name == "jcommonsenseqa" else Winograd if name == "xwinograd-ja" else ShortAnswer
        return lambda: form(open_task(name, root=root), tokenizer, limit)

    return {name: opener(name) for name in (*_BY_CHOICE, *_BY_TEXT)}


def summarise_japanese(measures: Sequence[Measure]) -> dict[str, Any]:
    """The JA mean, and which of its tasks are missing or left out of it. Empty without any of them."""
    names = (*_BY_CHOICE, *_BY_TEXT)
    found = {each.name: each for each in measures if each.name in names and each.settings.get("kind") in _KINDS}
    if not found:
        return {}
    if missing := [name for name in names if name not in found]:
        return {"name": "JA mean", "missing": missing}
    left_out = [name for name in _BY_TEXT if not found[name].above_chance]
    # Character F1 is not centred: an empty answer's score is none, or next to it.
    base = {**_BY_CHOICE, **{name: 0.0 for name in _BY_TEXT if name not in left_out}}
    error = math.sqrt(sum(((found[name].error or 0.0) / (1 - b)) ** 2 for name, b in base.items()))
    return {
        "name": "JA mean",
        "score": sum(found[name].centred(b) for name, b in base.items()) / len(base),
        "standard_error": error / len(base),
        "tasks": list(base),
        "left_out": left_out,
    }
