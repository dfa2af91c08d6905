"""Tasks of reasoning-gym (pip extra: rl): questions made by a program, which also marks the answers.

`dataset` names one of its hundred kinds, `options` are that one's own settings. The program draws row i by the seed
plus i: the test rows begin ten million further on, so that none is a training row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.task import Mark, Row

_FIRST = {"train": 0, "test": 10_000_000}
_SIZE = {"train": 10_000, "test": 256}


@dataclass
class ReasoningTask:
    """A `Task` over one of the kinds. dataset: reasoning-gym's own object."""

    dataset: Any
    title: str
    name: str = "reasoning-gym"
    language: Literal["en", "ja"] = "en"
    kind: Literal["conversations", "choice", "generation"] = "generation"
    chance: float = 0.0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Row:
        entry = self.dataset[range(len(self))[index]]
        question, answer = str(entry["question"]), str(entry["answer"])
        messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
        where = f"reasoning-gym {self.title}: made row {index + 1}"
        return Row(messages, where, references=(answer,), more={"question": question, "entry": entry})

    def mark(self, row: Row, completion: str) -> Mark:
        """As the kind itself marks: 0 to 1, often in between for what is nearly right."""
        found = completion.strip()
        score = float(self.dataset.score_answer(answer=found, entry=row.more["entry"]))
        return Mark(min(1.0, score), found or None)  # some kinds' sums are a rounding error above 1


def open_reasoning(
    split: Literal["train", "test", ""] = "",
    root: str = "",
    dataset: str = "",
    size: int = 0,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> ReasoningTask:
    """The task of that kind. root: nothing is read. size: rows, 0: the usual number. InputError without the package,
    or for a kind, a split or an option that it does not have.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise InputError("reasoning-gym is not installed: pip install 'megatron_iberis[rl]'.") from None
    split = split or "test"
    if split not in _FIRST:
        raise InputError(f"reasoning-gym has no split {split!r}: choose among {', '.join(_FIRST)}.")
    kinds = sorted(set(DATASETS) - {"composite"})
    if dataset not in kinds:
        near = get_close_matches(dataset, kinds, 5) or ("chain_sum", "spell_backward", "letter_counting")
        raise InputError(
            f"reasoning-gym has no dataset {dataset!r}: set it to one of {len(kinds)}, as {', '.join(near)}."
        )
    if size < 0:
        raise InputError(f"reasoning-gym can't have {size} rows: set its size to 1 or more, or 0 for the usual one.")
    try:
        made = reasoning_gym.create_dataset(
            dataset, size=size or _SIZE[split], seed=seed + _FIRST[split], **(options or {})
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(f"reasoning-gym's {dataset} refuses its options ({error}): correct them.") from None
    return ReasoningTask(made, dataset)


TASKS = {"reasoning-gym": open_reasoning}
