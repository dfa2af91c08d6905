"""From groups of answers to a rank's micro-batches.

Answers are sorted by length and dealt out like samples (`data/plan.py`), so that a micro-batch holds answers of about
one length, and is only as wide as the longest of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megatron_iberis.data.batches import Batch
from megatron_iberis.data.plan import BatchPlan
from megatron_iberis.data.rows import Rows
from megatron_iberis.rollouts.answers import Answer, Group
from megatron_iberis.training.reinforce import ADVANTAGES, DRAWN

_MULTIPLE = 64


def batches_of_groups(groups: Sequence[Group], plan: BatchPlan, multiple: int = 1) -> list[Batch]:
    """This rank's micro-batches; those for which nothing is left have rows without targets.

    multiple: the width of a batch is one of it (sequence parallelism splits it).
    """
    answers = [
        (group.prompt_ids, answer, advantage)
        for group in groups
        for answer, advantage in zip(group.answers, group.advantages(), strict=True)
    ]
    assert len(answers) <= plan.global_batch, "more answers than a step has rows"
    answers.sort(key=lambda each: len(each[0]) + len(each[1].ids), reverse=True)
    found = []
    for index in range(plan.accumulation):
        first = plan.first_sample(0, index)
        found.append(_batch(answers[first : first + plan.micro_batch], plan.micro_batch, multiple))
    return found


def _batch(answers: Sequence[tuple[tuple[int, ...], Answer, float]], rows: int, multiple: int) -> Batch:
    step = np.lcm(_MULTIPLE, multiple)
    longest = max((len(prompt) + len(answer.ids) - 1 for prompt, answer, _ in answers), default=1)
    width = int(-(-longest // step) * step)
    tokens, targets = np.zeros((rows, width), np.int64), np.full((rows, width), -1, np.int64)
    advantages, drawn = np.zeros((rows, width), np.float32), np.zeros((rows, width), np.float32)
    for row, (prompt, answer, advantage) in enumerate(answers):
        ids = np.array([*prompt, *answer.ids])
        tokens[row, : len(ids) - 1] = ids[:-1]
        chosen = np.array([each is not None for each in answer.drawn])
        places = len(prompt) - 1 + np.flatnonzero(chosen)
        targets[row, places] = np.array(answer.ids)[chosen]
        advantages[row, places] = advantage
        drawn[row, places] = [each for each in answer.drawn if each is not None]
    return Batch.of(Rows(tokens, targets, more={ADVANTAGES: advantages, DRAWN: drawn}))
