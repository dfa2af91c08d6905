"""Compiled layers train as the others do, and are compiled once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_iberis.config import load_recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.errors import InputError
from megatron_iberis.model import compilation
from tests.support.golden_runs import check, recipe, run
from tests.support.ranks import Ranks, groups_of

STEPS = 4


@pytest.mark.parametrize(
    ("device_batch", "settings"),
    [
        pytest.param(2, {"zero_stage": 1}, id="dp2"),
        pytest.param(4, {"zero_stage": 2, "tp": 2, "sequence_parallel": True}, id="tp2", marks=pytest.mark.full),
        pytest.param(4, {"zero_stage": 1, "cp": 2}, id="cp2", marks=pytest.mark.full),
        pytest.param(4, {"zero_stage": 1, "cp": 2, "recompute": True}, id="cp2-recompute", marks=pytest.mark.full),
        pytest.param(2, {"zero_stage": 1, "recompute": True}, id="dp2-recompute", marks=pytest.mark.full),
    ],
)
def test_losses_equal_golden(two_ranks: Ranks, device_batch: int, settings: dict[str, Any]) -> None:
    case = ("traj_base", "jp", "C_f32tab_f32ns_zeroinit")
    found = two_ranks(run, *case, device_batch, {**settings, "compile": True}, STEPS)
    check(found, *case, STEPS, 2e-5)


def graphs_of_each_step() -> list[int]:
    """Runs on a rank: how many graphs there are after each of six steps, with documents and evaluation."""
    from torch._dynamo.utils import counters

    from megatron_iberis.training.engine import Engine

    torch._dynamo.reset()
    counters.clear()
    wanted = recipe("traj_base", "en", 2, compile=True)
    engine = Engine(wanted, groups_of(1), torch.device("cpu"))
    found = []
    for step in range(6):
        tokens = torch.randint(wanted.model.vocab_size, (2, 33))
        borders = torch.tensor([0, 5 + step, 32, 40 + 2 * step, 64])  # other lengths in each step
        micro = [Batch(tokens[:, :-1], tokens[:, 1:], borders) for _ in range(engine.accumulation)]
        engine.step(step, micro)
        with torch.no_grad():
            engine.model(tokens[:, :-1], tokens[:, 1:], borders)
        found.append(counters["stats"]["unique_graphs"])
    engine.deepspeed.destroy()
    return found


def test_nothing_is_compiled_after_the_second_step(one_rank: Ranks) -> None:
    (graphs,) = one_rank(graphs_of_each_step)
    assert graphs[1] > 0
    assert graphs[1:] == [graphs[1]] * 5


@pytest.mark.parametrize(
    ("settings", "about"),
    [
        (["--parallel.zero_stage=3"], "does not go with ZeRO stage 3"),
        (["--preference.data=pairs.jsonl"], "rows of one length"),
    ],
)
def test_what_cannot_be_compiled_is_refused(settings: list[str], about: str) -> None:
    with pytest.raises(InputError, match=about):
        load_recipe("demo", ["--train.compile=true", *settings])


def test_no_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        compilation.compile_layers(None)  # type: ignore[arg-type]
