"""Chat tasks: conversations whose answer is marked, by its letter or by its text, and ChatCORE.

* Choice: the likeliest of the options' letters at the last token of the prompt. Each must be one token.
* Generation: the likeliest token each time, 512 of them at most, with the calculator.
* Beside the score the bits per byte of the right answer's text, which move long before the score does.

ChatCORE is the mean of six tasks' centred accuracies. The published figure owes most of its height to SpellingBee,
so it stands here with and without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Marked, Measure
from megatron_iberis.evaluation.questions import Answer, Letters, Likelihood, Question, Reply
from megatron_iberis.sandbox import Limits, run_tests
from megatron_iberis.sandbox.level import chosen_level
from megatron_iberis.tasks import TASKS, Mark, Row, Task, code, open_task
from megatron_iberis.tasks.code import program
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import render, render_for_completion, text_of

CHAT_CORE = {
    "arc-easy": 0.25,
    "arc-challenge": 0.25,
    "mmlu": 0.25,
    "gsm8k": 0.0,
    "humaneval": 0.0,
    "spelling-bee": 0.0,
}
"""ChatCORE's tasks, with the baselines by which they are centred."""
WITHOUT = "spelling-bee"
JAPANESE = ("jcommonsenseqa", "jmmlu", "jnli", "jsquad", "niilc", "mgsm-ja", "jhumaneval")
ANSWER_TOKENS = 512


class ChatTask:
    """A task's rows as a `Benchmark`. limit: rows at most, 0: all."""

    def __init__(self, task: Task, tokenizer: Tokenizer, limit: int = 0, tokens: int = ANSWER_TOKENS) -> None:
        if task.kind == "conversations":
            raise InputError(f"{task.name} is there to train on, it has no right answers: leave it out (--tasks).")
        self.name, self.chance, self._task, self._tokenizer = task.name, task.chance, task, tokenizer
        self._tokens, self._size = tokens, min(len(task), limit) if limit else len(task)
        self._counts = tokenizer.token_bytes()
        form = {"kind": "choice"} if task.kind == "choice" else {"kind": "generation", "tokens": tokens}
        self.settings: Mapping[str, Any] = {**form, "language": task.language, "balanced": task.name == "jnli"}

    def __len__(self) -> int:
        return self._size

    def ask(self, index: int) -> list[Question]:
        row = self._task[index]
        prompt = tuple(render_for_completion(self._tokenizer, row.messages, answer_anew=True))
        gold = self._gold(row, prompt)
        if self._task.kind == "choice":
            return [Letters(prompt, self._letters(row)), gold]
        return [Answer(prompt, self._tokens, tools=True), gold]

    def mark(self, index: int, replies: Sequence[Reply]) -> Marked:
        row, reply = self._task[index], replies[0]
        completion = reply.text
        if self._task.kind == "choice":
            completion = row.letters[reply.logprobs.index(max(reply.logprobs))]
        mark, others = self._marked(row, completion), other_scores(self._task, row, completion)
        gold = row.letters[row.right] if row.right >= 0 else (row.references or (text_of(_answer(row)),))[0]
        return Marked(mark.score, mark.found, gold, *self._text_loss(row, replies[1]), others)

    def _marked(self, row: Row, completion: str) -> Mark:
        return self._task.mark(row, completion)

    def _letters(self, row: Row) -> tuple[int, ...]:
        ids = [self._tokenizer.encode(letter) for letter in row.letters]
        if any(len(each) != 1 for each in ids):
            several = row.letters[next(i for i, each in enumerate(ids) if len(each) != 1)]
            raise InputError(
                f"{row.where}: the tokenizer makes several tokens of the letter {several!r}, and the letters are "
                "compared as one token each: leave this task out (--tasks)."
            )
        return tuple(each[0] for each in ids)

    def _gold(self, row: Row, prompt: tuple[int, ...]) -> Likelihood:
        """How likely the right answer is: of options their text, else what the assistant says in the row."""
        if row.options:
            said = tuple(self._tokenizer.encode(row.options[row.right]))
            return Likelihood((*prompt, *(said or (self._tokenizer.bos_id,))), len(prompt))
        ids, _ = render(self._tokenizer, row.messages)
        return Likelihood(tuple(ids), len(prompt))

    def _text_loss(self, row: Row, reply: Reply) -> tuple[float, int]:
        """Nats of the right answer's tokens that stand for text, and their bytes."""
        prompt = tuple(render_for_completion(self._tokenizer, row.messages, answer_anew=True))
        gold = self._gold(row, prompt)
        counts = self._counts[list(gold.ids[gold.start :])]
        nats = -sum(x for x, count in zip(reply.logprobs, counts, strict=True) if count)
        return nats, int(counts.sum())


class CodeTask(ChatTask):
    """A task whose answers are programs: they run in the sandbox, and the result says how well it shuts them in.

    allow_weak: also where it can't; InputError there otherwise, before anything is asked.
    """

    def __init__(self, task: Task, tokenizer: Tokenizer, limit: int = 0, allow_weak: bool = False) -> None:
        super().__init__(task, tokenizer, limit)
        self._limits = Limits(allow_weak=allow_weak)
        self.settings = {**self.settings, "sandbox": chosen_level(self._limits)}

    def _marked(self, row: Row, completion: str) -> Mark:
        written = program(row, completion)
        tests = f"{row.more['test']}\ncheck({row.more['entry_point']})\n"
        return Mark(float(run_tests(written, tests, self._limits).passed), written)


def other_scores(task: Task, row: Row, completion: str) -> dict[str, float]:
    """Scores by the task's other rules, as the strict one by which published figures were found."""
    return {name: marker(row, completion).score for name, marker in getattr(task, "other_marks", {}).items()}


def _answer(row: Row) -> Any:
    return row.messages[-1]["content"]


def check_chat_model(stage: str, checkpoint: str) -> None:
    """InputError for a model that has not learned conversations."""
    if stage != "chat":
        raise InputError(
            f"{checkpoint} is a base model, which has not learned conversations: use iberis eval base, or give a "
            "checkpoint of mid-training or SFT."
        )


def summarise_chat(measures: Sequence[Measure]) -> dict[str, Any]:
    """ChatCORE with and without SpellingBee; or which of its tasks are missing. Empty without any of them."""
    found = {each.name: each for each in measures if each.name in CHAT_CORE and each.score is not None}
    if not found:
        return {}
    missing = [name for name in CHAT_CORE if name not in found]
    if missing:
        return {"name": "ChatCORE", "missing": missing}

    def mean(names: Sequence[str]) -> tuple[float, float]:
        centred = [found[name].centred(CHAT_CORE[name]) for name in names]
        errors = [(found[name].error or 0.0) / (1 - CHAT_CORE[name]) for name in names]
        return sum(centred) / len(names), math.sqrt(sum(e * e for e in errors)) / len(names)

    score, error = mean(list(CHAT_CORE))
    without, without_error = mean([name for name in CHAT_CORE if name != WITHOUT])
    return {
        "name": "ChatCORE",
        "score": score,
        "standard_error": error,
        "without_spellingbee": without,
        "without_spellingbee_standard_error": without_error,
    }


def chat_names() -> list[str]:
    """The tasks that can be evaluated, ChatCORE's first."""
    return [*(name for name in CHAT_CORE if name in TASKS), *(name for name in JAPANESE if name in TASKS)]


def open_chat(
    root: str, tokenizer: Tokenizer, names: Sequence[str], limit: int = 0, allow_weak: bool = False
) -> dict[str, Callable[[], ChatTask]]:
    """What opens each task, by name. allow_weak: as `CodeTask`'s."""

    def opener(name: str) -> Callable[[], ChatTask]:
        if name in code.TASKS:
            return lambda: CodeTask(open_task(name, root=root), tokenizer, limit, allow_weak)
        return lambda: ChatTask(open_task(name, root=root), tokenizer, limit)

    return {name: opener(name) for name in names}
