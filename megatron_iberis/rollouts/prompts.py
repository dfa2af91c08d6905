"""What is to be answered: the questions of tasks, and which of them a batch takes.

* A prompt is all of a conversation but its last answer, which is the right one.
* Which prompts a batch takes is a function of its number, so the place in the prompts is the step: nothing of it
  stands in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from megatron_iberis.data.rows import Place
from megatron_iberis.errors import InputError
from megatron_iberis.tasks import Row, Task
from megatron_iberis.tasks.rewards import Reward
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import render_for_completion, text_of


@dataclass(frozen=True)
class Prompt:
    """number: among all of a run's. where: "FILE:LINE". worth: of an answer's text, by the reward of the recipe."""

    number: int
    where: str
    ids: tuple[int, ...]
    question: str
    answer: str
    worth: Callable[[str], float]


@dataclass(frozen=True)
class Prompts:
    """All of a run, in the recipe's order. too_long: left out, as there is no room for an answer behind them."""

    prompts: tuple[Prompt, ...]
    too_long: int = 0

    def __str__(self) -> str:
        return f"{len(self.prompts):,} prompts" + (
            f", {self.too_long:,} left out as too long" if self.too_long else ""
        )

    def locate(self, sample: int) -> list[Place]:
        """Samples are answers, which lie in no token file."""
        return []


def read_prompts(
    task: Task, rows: range, tokenizer: Tokenizer, reward: Reward | None, longest: int, first: int = 0
) -> Prompts:
    """The prompts of a task's rows, numbered from `first`. longest: tokens of one at most. reward: in place of the
    task's own mark. InputError for a task that has no marks, or none that a written answer could get.
    """
    found: list[Prompt] = []
    too_long = 0
    if reward is None and task.kind != "generation":
        raise InputError(
            f"{task.name} does not mark what a model writes: take a task that does (gsm8k, simple-spelling, ...), or "
            "set reinforce.reward."
        )
    for index in rows:
        row = task[index]
        ids = tuple(render_for_completion(tokenizer, row.messages, answer_anew=True))
        if len(ids) > longest:
            too_long += 1
            continue
        question, answer = text_of(row.messages[-2]["content"]), right_answer(row)
        worth = _worth(task, row) if reward is None else _rewarded(reward, question, answer)
        found.append(Prompt(first + len(found), row.where, ids, question, answer, worth))
    return Prompts(tuple(found), too_long)


def right_answer(row: Row) -> str:
    """As a reward function is given it: the first text that counts as right, else what the assistant says."""
    return row.references[0] if row.references else text_of(row.messages[-1]["content"])


def _worth(task: Task, row: Row) -> Callable[[str], float]:
    return lambda completion: task.mark(row, completion).score


def _rewarded(reward: Reward, question: str, answer: str) -> Callable[[str], float]:
    return lambda completion: reward(question, completion, answer)


@dataclass(frozen=True)
class PromptOrder:
    """Which prompts a batch takes. prompts: how many there are. groups: of a batch. refill: as in the recipe."""

    prompts: int
    groups: int
    refill: int
    seed: int

    @property
    def batches_per_epoch(self) -> int:
        """Batches after which each prompt was taken once, at least."""
        return -(-self.prompts // self.groups)

    def taken(self, batch: int) -> list[int]:
        """The prompts of a batch: all in an order of its own each epoch."""
        places = range(batch * self.groups, (batch + 1) * self.groups)
        orders = {epoch: self._order(epoch) for epoch in {place // self.prompts for place in places}}
        return list(dict.fromkeys(int(orders[p // self.prompts][p % self.prompts]) for p in places))

    def spare(self, batch: int) -> list[int]:
        """Others, in turn, for those of which there is nothing to learn."""
        taken = set(self.taken(batch))
        drawn = np.random.default_rng([self.seed, 1, batch]).permutation(self.prompts).tolist()
        return [number for number in drawn if number not in taken][: (self.refill - 1) * self.groups]

    def _order(self, epoch: int) -> Sequence[int] | np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(self.prompts)
