"""Errors and chance: what a score is worth is worked out as a textbook would."""

from __future__ import annotations

import math

import pytest

from megatron_iberis.evaluation.benchmark import Marked, Measure, measure, standard_error
from megatron_iberis.evaluation.report import row
from tests.evaluation.support import Numbers


def test_the_standard_error_of_a_share_is_the_binomials() -> None:
    scores = [1.0] * 33 + [0.0] * 1286
    p = 33 / 1319
    assert standard_error(scores) == pytest.approx(math.sqrt(p * (1 - p) / 1318), rel=1e-9)
    assert standard_error([0.3]) == pytest.approx(math.sqrt(0.21))
    assert standard_error([0.0, 0.5, 1.0]) == pytest.approx(0.5 / math.sqrt(3))


@pytest.mark.parametrize(
    ("score", "error", "n", "chance", "at_chance", "above"),
    [
        (0.27, 0.013, 1172, 0.25, True, False),
        (0.29, 0.013, 1172, 0.25, False, True),
        (0.20, 0.013, 1172, 0.25, False, False),
        (0.0, 0.0, 5, 0.25, True, False),  # no error of its own: that of chance counts
        (0.0, 0.0, 164, 0.0, True, False),
        (0.012, 0.0085, 164, 0.0, True, False),
        (1.0, 0.0, 1, 0.5, True, False),
    ],
)
def test_what_cannot_be_told_from_chance_is_marked(
    score: float, error: float, n: int, chance: float, at_chance: bool, above: bool
) -> None:
    found = Measure("arc", n, score, error, chance)
    assert (found.at_chance, found.above_chance) == (at_chance, above)
    assert ("~" in row(found)) == at_chance


def test_the_table_has_eighty_columns() -> None:
    long = Measure("a-task-whose-name-is-longer-than-its-column-is", 14042, 1.0, 0.5, 0.333, 11.5053, balanced=0.5)
    assert max(map(len, row(long).splitlines())) <= 80


def test_bits_per_byte_are_the_totals_with_the_error_of_a_ratio() -> None:
    marks = [Marked(None, None, "", nats, count) for nats, count in ((6.0, 3), (1.0, 1), (9.0, 5))]
    found = measure(Numbers(3), marks)
    assert found.bits_per_byte == pytest.approx(16 / math.log(2) / 9)
    ratio = 16 / 9
    squares = sum((n - ratio * b) ** 2 for n, b in ((6, 3), (1, 1), (9, 5)))
    assert found.bits_error == pytest.approx(math.sqrt(squares * 3 / 2) / 9 / math.log(2))
    assert found.score is None


def test_balanced_accuracy_does_not_reward_one_answer() -> None:
    benchmark = Numbers(4)
    benchmark.settings = {"balanced": True}
    marks = [Marked(1.0, "n", "n"), Marked(1.0, "n", "n"), Marked(1.0, "n", "n"), Marked(0.0, "n", "e")]
    found = measure(benchmark, marks)
    assert (found.score, found.balanced) == (0.75, 0.5)
    assert found.at_chance, "0.75 by always saying what is right in three of four items"
    assert "the same, answers balanced" in row(found)


def test_finish_reasons_are_shares() -> None:
    marks = [Marked(1.0, "a", "a")] * 3
    assert measure(Numbers(3), marks, ["stop", "length", "stop"]).finish == pytest.approx(
        {"stop": 2 / 3, "length": 1 / 3}
    )
