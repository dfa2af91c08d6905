"""Tasks that reasoning-gym makes and marks."""

from __future__ import annotations

import sys

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.tasks import open_task


@pytest.mark.parametrize("dataset", ["chain_sum", "basic_arithmetic", "spell_backward", "letter_counting"])
def test_its_own_answers_are_right_and_others_are_not(dataset: str) -> None:
    task = open_task("reasoning-gym", dataset=dataset, size=20)
    assert len(task) == 20
    for index in range(20):
        row = task[index]
        right = str(row.messages[-1]["content"])
        assert task.mark(row, f" {right}\n").score == 1
        assert task.mark(row, f"not {right}, I think").score < 1
        assert task.mark(row, "").score < 1
    assert task[3] == open_task("reasoning-gym", dataset=dataset, size=20)[3]


def test_no_test_row_is_a_training_row_by_its_number() -> None:
    train, test = (open_task("reasoning-gym", split, dataset="chain_sum", size=200) for split in ("train", "test"))
    questions = {train[i].more["question"] for i in range(200)}
    assert sum(test[i].more["question"] in questions for i in range(200)) < 5  # some sums are the same by chance


def test_options_are_the_kinds_own() -> None:
    task = open_task("reasoning-gym", dataset="chain_sum", size=20, options={"min_terms": 2, "max_terms": 2})
    assert all(task[i].more["entry"]["metadata"]["num_terms"] == 2 for i in range(20))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "has no dataset ''"),
        ({"dataset": "nonsense"}, "has no dataset 'nonsense'"),
        ({"dataset": "chain_sum", "size": -1}, "can't have -1 rows"),
        ({"dataset": "chain_sum", "options": {"nonsense": 1}}, "refuses its options"),
        ({"dataset": "chain_sum", "options": {"min_terms": 9, "max_terms": 2}}, "refuses its options"),
        ({"dataset": "chain_sum", "split": "valid"}, "has no split"),
        ({"dataset": "chain_sum", "nonsense": 1}, "has no setting"),
    ],
)
def test_what_is_not_there_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_task("reasoning-gym", **settings)  # type: ignore[arg-type]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InputError, match=r"megatron_iberis\[rl\]"):
        open_task("reasoning-gym", dataset="chain_sum")
