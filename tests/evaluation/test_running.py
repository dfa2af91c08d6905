"""Each item is asked once, at any number of processes and however often an evaluation is ended."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Benchmark, Measure
from megatron_iberis.evaluation.journal import EvaluationFolder
from megatron_iberis.evaluation.running import mark_again, run_benchmarks
from tests.evaluation.support import Counting, Numbers

SETTINGS = {"checkpoint": "abc", "limit": 0}


def run(folder: Path, benchmarks: list[Benchmark], model: Any, **settings: Any) -> list[Measure]:
    opened = EvaluationFolder(folder, SETTINGS)
    try:
        return run_benchmarks(benchmarks, opened, model, **settings)
    finally:
        opened.close()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_five_items_are_each_asked_once_by_any_number_of_processes(processes: int, tmp_path: Path) -> None:
    model = Counting(tmp_path / "asked", processes)
    (found,) = run(tmp_path / "out", [Numbers(5)], model)
    assert sorted(model.items()) == [0, 1, 2, 3, 4]
    (alone,) = run(tmp_path / "alone", [Numbers(5)], Counting(tmp_path / "others"))
    assert found == alone
    assert found.n == 5
    assert found.score in (0, 1 / 5, 2 / 5, 3 / 5, 4 / 5, 1)
    lines = [json.loads(line) for line in (tmp_path / "out" / "numbers.jsonl").read_text().splitlines()]
    assert sorted(line["item"] for line in lines) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("context", "beyond"), [(1, 4), (2, 0), (3, 0)])
def test_items_longer_than_the_context_are_counted_without_the_token_that_is_only_predicted(
    context: int, beyond: int, tmp_path: Path
) -> None:
    (found,) = run(tmp_path / "out", [Numbers(4)], Counting(tmp_path / "asked", context=context))  # 3 ids each
    assert found.beyond_context == beyond


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3])
def test_an_evaluation_that_was_ended_asks_only_what_is_missing(after: int, tmp_path: Path) -> None:
    benchmarks: list[Benchmark] = [Numbers(9, "first"), Numbers(4, "second")]
    model, seen = Counting(tmp_path / "asked"), []

    def progress(name: str, done: int, of: int) -> None:
        seen.append(name)
        if len(seen) == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(tmp_path / "out", benchmarks, model, progress=progress)
    path = tmp_path / "out" / "first.jsonl"
    with path.open("a") as file:
        file.write('{"item": 8, "prom')  # a line that was cut
    kept = path.read_text().count("\n")
    found = run(tmp_path / "out", benchmarks, model)
    assert found == run(tmp_path / "whole", benchmarks, Counting(tmp_path / "others"))
    assert Counter(model.items()) == {item: 2 if item < 4 else 1 for item in range(9)}
    assert kept > 0
    before = model.items()
    assert run(tmp_path / "out", benchmarks, model) == found
    assert model.items() == before, "an evaluation that is complete asks nothing"


def test_the_journal_has_what_was_asked_said_and_marked(tmp_path: Path) -> None:
    run(tmp_path / "out", [Numbers(1)], Counting(tmp_path / "asked"))
    line = json.loads((tmp_path / "out" / "numbers.jsonl").read_text())
    assert (line["prompt"], line["continuations"]) == ([1, 0], [[7], [8]])
    assert [len(reply["logprobs"]) for reply in line["output"]] == [1, 1]
    assert line["found"] in ("0", "1")
    assert line["gold"] == "0"
    assert line["score"] == float(line["found"] == "0")


def test_answers_can_be_marked_again_without_a_model(tmp_path: Path) -> None:
    first = run(tmp_path / "out", [Numbers(6)], Counting(tmp_path / "asked"))
    folder = EvaluationFolder(tmp_path / "out", SETTINGS)
    assert mark_again([Numbers(6)], folder, 3) == first
    (other,) = mark_again([Numbers(6, gold=1)], folder, 3)
    assert other.score == pytest.approx(1 - (first[0].score or 0))
    line = json.loads((tmp_path / "out" / "numbers.jsonl").read_text().splitlines()[0])
    assert line["gold"] == "1", "the journal keeps the new marks"
    folder.close()


def test_marking_again_refuses_what_was_not_asked(tmp_path: Path) -> None:
    run(tmp_path / "out", [Numbers(4)], Counting(tmp_path / "asked"))
    folder = EvaluationFolder(tmp_path / "out", SETTINGS)
    with pytest.raises(InputError, match="lacks 2 of 6 items"):
        mark_again([Numbers(6)], folder, 3)
    changed = Numbers(4)
    changed.ask = lambda index: Numbers(9).ask(index + 1)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="item 0 of numbers was asked something else"):
        mark_again([changed], folder, 3)
    folder.close()


def test_a_folder_is_one_evaluations(tmp_path: Path) -> None:
    held = EvaluationFolder(tmp_path / "out", SETTINGS)
    with pytest.raises(InputError, match="another evaluation is writing"):
        EvaluationFolder(tmp_path / "out", SETTINGS)
    held.close()
    with pytest.raises(InputError, match="begun with another checkpoint"):
        EvaluationFolder(tmp_path / "out", {**SETTINGS, "checkpoint": "def"})
    EvaluationFolder(tmp_path / "out", SETTINGS).close()
