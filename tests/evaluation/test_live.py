"""Tasks between steps: measured with the weights that are trained, each item on one rank, at any layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_iberis.config import EvaluationConfig
from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.asking import Asker
from megatron_iberis.evaluation.benchmark import measure
from megatron_iberis.evaluation.live import LiveTasks, live_tasks
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.sharding.whole import full_weights
from tests.conftest import Corpus
from tests.evaluation.support import Numbers
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, words
from tests.support.small_engines import MODEL, Layout, engine, recipe, start_weights

ONE, TWO = Numbers(5, "one"), Numbers(3, "two")
TOKENIZER = SimpleNamespace(vocab_size=60, bos_id=0, specials={})


class Told:
    """A monitor that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def tell(self, event: Any) -> None:
        self.events.append(event)


def measured(layout: Layout) -> tuple[list[Any], dict[str, torch.Tensor], list[int]]:
    """Runs on a rank: what the monitor was told after step 3, the whole weights, and the items that were asked."""
    running, told, asked = engine(recipe(layout), start_weights()), Told(), []

    class Seen(Numbers):
        def ask(self, index: int) -> list[Any]:
            asked.append(index)
            return super().ask(index)

    tasks = LiveTasks(running, TOKENIZER, [Seen(5, "one"), Seen(3, "two")], told)  # type: ignore[arg-type]
    tasks(3)
    weights = {name: tensor.clone() for name, tensor in full_weights(running.state).items()}
    running.deepspeed.destroy()
    return told.events, weights, asked


def by_one_model() -> dict[str, float]:
    asker = Asker(Decoder(MODEL, start_weights()), TOKENIZER)  # type: ignore[arg-type]
    found = {}
    for benchmark in (ONE, TWO):
        replies = asker([benchmark.ask(i) for i in range(len(benchmark))])
        found[benchmark.name] = measure(benchmark, [benchmark.mark(i, r) for i, r in enumerate(replies)]).score or 0.0
    return found


@pytest.mark.parametrize("layout", [Layout(), Layout(stage=2, tp=2), Layout(stage=3)], ids=str)
def test_the_live_weights_are_measured_at_any_layout(layout: Layout, two_ranks: Ranks) -> None:
    replies = two_ranks(measured, replace(layout, rows=4))
    for events, weights, _ in replies:
        for name, tensor in start_weights().items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=0)
        (event,) = events
        assert (event.step, event.group) == (3, "tasks")
        for name, score in by_one_model().items():
            assert event.values[name] == pytest.approx(score)
            assert f"{name}/standard_error" in event.values
            assert f"{name}/bits_per_byte" in event.values
    assert sorted(item for _, _, asked in replies for item in asked) == sorted([*range(5), *range(3)])


def failing(layout: Layout) -> str:
    """Runs on a rank: what becomes of a benchmark that one rank can't mark."""
    running = engine(recipe(layout), start_weights())

    class Broken(Numbers):
        def mark(self, index: int, replies: Any) -> Any:
            if index == 1:
                raise InputError("row 1 is broken: mend it.")
            return super().mark(index, replies)

    try:
        LiveTasks(running, TOKENIZER, [Broken(4)], None)(3)  # type: ignore[arg-type]
    except InputError as error:
        return str(error)
    finally:
        running.deepspeed.destroy()
    return ""


def test_a_failure_on_one_rank_is_all_ranks(two_ranks: Ranks) -> None:
    assert two_ranks(failing, Layout(rows=4)) == ["row 1 is broken: mend it."] * 2


def test_nothing_is_measured_unless_the_recipe_says_so() -> None:
    running = SimpleNamespace(recipe=SimpleNamespace(evaluation=EvaluationConfig()))
    assert live_tasks(running, TOKENIZER, None) == []  # type: ignore[arg-type]


def test_a_run_logs_the_scores_of_its_tasks(corpus: Corpus, bundle: Path, tmp_path: Path, one_rank: Ranks) -> None:
    tasks = {"tasks": "walnut|shop", "tasks_every": "3", "tasks_items": "2", "tasks_root": str(bundle)}
    settings = {f"evaluation__{name}": value for name, value in tasks.items()}
    overrides = words(corpus, tmp_path / "run", train__steps="5", evaluation__sample_every="0", **settings)
    assert one_rank(pretrain, overrides) == [0]
    told = [entry for entry in log(tmp_path / "run", "figures") if entry["group"] == "tasks"]
    assert [entry["step"] for entry in told] == [3, 5]
    assert {"walnut", "walnut/standard_error", "shop", "core"} <= told[0]["values"].keys()


def test_an_unknown_task_ends_a_run_before_its_first_step(
    corpus: Corpus, bundle: Path, tmp_path: Path, one_rank: Ranks
) -> None:
    settings = {"evaluation__tasks": "nonsense", "evaluation__tasks_root": str(bundle)}
    with pytest.raises(AssertionError, match="there is no task 'nonsense' to evaluate"):
        one_rank(pretrain, words(corpus, tmp_path / "run", **settings))
