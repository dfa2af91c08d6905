"""What `iberis plan` says: layouts, time, links, batch, and its refusals; and that a run is held against it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from megatron_iberis.cli import main
from megatron_iberis.config import ModelConfig, Recipe, TrainConfig, load_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.hardware.devices import DEVICES, device_of_driver, known_device
from megatron_iberis.planner.batch import critical_batch, expected_loss
from megatron_iberis.planner.calibration import Calibration, load_calibration, save_calibration
from megatron_iberis.planner.in_run import PlanCheck
from megatron_iberis.planner.layouts import Layout, layouts_of, own_layout, recipe_at
from megatron_iberis.planner.links import Group, Sent, Wires, groups_of
from megatron_iberis.planner.parameters import heaviest_owner, parameters_of
from megatron_iberis.planner.plan import make_plan, table_rates
from megatron_iberis.planner.report import lines
from megatron_iberis.planner.step_time import Rates
from megatron_iberis.planner.work import Work
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, words

WIRES = Wires(100e9, 10e9, 0.0, 0.0)


def small() -> Recipe:
    model = ModelConfig(depth=4, width=64, heads=4, vocab_size=256, sequence_length=64)
    return Recipe(model=model, train=TrainConfig(steps=1000, batch_tokens=64 * 32, device_batch=4)).resolved()


def test_every_layout_holds_the_whole_batch_and_keeps_groups_in_a_node() -> None:
    recipe = small()
    for layout in layouts_of(recipe, 16, 8):
        assert layout.world == 16
        assert layout.dp * layout.rows * layout.accumulation == 32
        assert layout.tp * layout.cp <= 8
        assert own_layout(recipe_at(recipe, layout), 16) == layout


def test_a_batch_that_the_gpus_cannot_share_is_refused_with_the_fix() -> None:
    recipe = small()
    with pytest.raises(InputError, match=r"24 GPUs cannot share a step of 32 rows .* multiple of 1536"):
        layouts_of(recipe, 24, 8)


def test_plan_puts_what_fits_first_by_time_and_advises_one_of_it() -> None:
    recipe, device = small(), known_device("h100")
    plan = make_plan(recipe, 8, device, table_rates(device, "bf16", 8), 4.2e9)
    fitting = [plan.fits(p) for p in plan.predictions]
    assert True in fitting
    assert False in fitting
    assert fitting == sorted(fitting, reverse=True)
    times = [p.time.seconds for p in plan.predictions if plan.fits(p)]
    assert times == sorted(times)
    assert plan.advised
    assert plan.fits(plan.advised)
    assert plan.advised.time.seconds <= 1.15 * times[0]
    text = list(lines(plan, price=2.0))
    assert max(map(len, text)) <= 80
    assert any("--parallel.zero_stage" in line for line in text)
    assert any("critical batch" in line for line in text)
    nothing = make_plan(recipe, 8, device, plan.rates, 1e9)
    assert nothing.advised is None
    assert any("No layout fits" in line for line in lines(nothing, 0.0))


@pytest.mark.full
def test_command_writes_every_layout_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--recipe", "demo", "--gpus", "8", "--device", "a100", "--price", "1.5", "--train.batch_tokens", "16384"]
    assert main(["plan", *words, "--json", str(tmp_path / "plan.json")]) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "plan.json").read_text())
    best = found["advised"]
    assert best in found["layouts"]
    assert best["money"] == pytest.approx(8 * best["hours"] * 1.5)
    assert best["step_seconds"] == pytest.approx(sum(best["step_parts"].values()))
    assert found["parameters"] == load_recipe("demo").model.parameter_count()
    assert "uncalibrated" in shown


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--gpus", "12"], "12 GPUs are no whole number of nodes of 8"),
        (["--gpus", "0"], "at least 1"),
        (["--gpus", "8", "--device", "h101"], "no device 'h101'.*h100"),
        (["--gpus", "8", "--recipe", "d21"], "no recipe 'd21'"),
        (["--gpus", "8", "--calibrate", "--device", "b200"], "has no b200"),
        (["--gpus", "8", "--deepspeed.zero_optimization.offload_optimizer.device", "cpu"], "offloading"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_sentence(
    settings: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *settings]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    import re

    assert re.search(said, captured.err)
    assert captured.err.count("\n") == 1


def test_messages_go_over_the_slower_of_links_and_network() -> None:
    inside, across = Sent(), Sent()
    inside.add(WIRES, "all_reduce", 8e9, Group(8, 1))
    assert inside.between == 0
    assert inside.seconds == pytest.approx(2 * 8e9 * 7 / 8 / 100e9)
    across.add(WIRES, "all_reduce", 8e9, Group(8, 4))
    assert across.between == pytest.approx(2 * 8e9 * 3 / 4 / 8)
    assert across.seconds == pytest.approx(max(2 * 8e9 * 7 / 8 / 100e9, across.between / 10e9))
    alone = Sent()
    alone.add(WIRES, "all_reduce", 8e9, Group(1, 1))
    assert alone.seconds == alone.inside == 0


def test_groups_sit_where_the_ranks_are_placed() -> None:
    layout = Layout(2, 2, 4, 1, False, 1, 1)  # docs/parallelism.md's example: 2 nodes of 8
    assert groups_of(layout, 8) == {
        "tp": Group(2, 1),
        "cp": Group(2, 1),
        "dp_cp": Group(4, 2),
        "world": Group(8, 2),
    }


def test_owners_of_matrices_share_the_work_of_newton_schulz() -> None:
    recipe = load_recipe("d20")
    parameters = parameters_of(recipe.model, 1)
    in_fp32 = replace(recipe.optimizer, newton_schulz_dtype="fp32")
    assert heaviest_owner(parameters, 1, in_fp32).flops == pytest.approx(
        11.8e12, rel=0.02
    )  # 67 square, 40 of the MLP
    whole = heaviest_owner(parameters, 1, recipe.optimizer)
    assert whole.flops == pytest.approx(9.4e12, rel=0.02)  # those of the MLP by their Gram matrices
    assert heaviest_owner(parameters, 8, recipe.optimizer).flops == pytest.approx(whole.flops / 8, rel=0.1)
    assert len(heaviest_owner(parameters, 512, recipe.optimizer).shapes) == 1


def test_critical_batch_is_kaplans() -> None:
    assert expected_loss(542e6, 10.8e9) == pytest.approx(2.76, abs=0.01)
    assert critical_batch(542e6, 10.8e9) == pytest.approx(1.67e6, rel=0.02)
    assert critical_batch(7e9, 140e9) > critical_batch(542e6, 10.8e9)


def test_every_device_is_known_by_its_drivers_name() -> None:
    for device in DEVICES:
        assert device_of_driver(device.driver_name) == device
        assert device.peak("bf16") > 0
    assert device_of_driver("NVIDIA GeForce GT 710") is None


def test_measured_rates_take_the_place_of_the_tables() -> None:
    rates = Rates(1e12, 1e9, WIRES, gpu=False, products={(64, 64, 64): 5e11}, factors={"head": 2.0})
    assert rates.product_seconds((64, 64, 64)) == pytest.approx(2 * 64**3 / 5e11)
    assert rates.seconds(Work(bytes=1e9), 2.0) == pytest.approx(2.0)


def test_a_calibration_is_kept_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = Calibration({"bf16": 1e12}, 1e10, {"bf16 8 8 8": 1e11}, {"bf16": 1e11}, {"bf16": {"head": 1.5}})
    second = Calibration({"fp32": 1e11}, 2e10, {"fp32 8 8 8": 1e10}, {"fp32": 1e10}, {"fp32": {"head": 1.1}})
    save_calibration("machine", first)
    path = save_calibration("machine", second)
    found = load_calibration("machine")
    assert found
    bf16, fp32 = (found.rates(dtype, False, 1, WIRES) for dtype in ("bf16", "fp32"))
    assert bf16
    assert fp32
    assert bf16.products == {(8, 8, 8): 1e11}
    assert fp32.factors == {"head": 1.1}
    assert fp32.bandwidth == 2e10
    assert found.rates("fp8", False, 1, WIRES) is None
    assert found.rates("bf16", False, 1, WIRES, compiled=True) is None
    path.write_text("{")
    assert load_calibration("machine") is None


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.full)])
def test_calibration_measures_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    import torch

    from megatron_iberis.planner.calibration import measure

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = replace(small(), train=replace(small().train, dtype="fp32", compile=compiled))
    found = measure(recipe, torch.device("cpu"))
    rates = found.rates("fp32", False, 1, WIRES, compiled)
    assert rates
    assert rates.calibrated
    assert set(rates.factors) == {"embedding", "slc2", "attention", "head"}
    assert min(*rates.products.values(), rates.bandwidth, rates.attention, *rates.factors.values()) > 0


def test_a_run_is_held_against_its_plan_at_step_20(one_rank: Ranks, corpus: Corpus, tmp_path: Path) -> None:
    settings = {"train.steps": "22", "evaluation.every": "0", "evaluation.sample_every": "0", "checkpoint.every": "0"}
    (code,) = one_rank(pretrain, words(corpus, tmp_path / "run", **settings))
    assert code == 0
    (figures,) = [entry for entry in log(tmp_path / "run", "figures") if entry["group"] == "plan"]
    assert figures["step"] == 20
    assert set(figures["values"]) == {
        "step_seconds_predicted",
        "step_seconds",
        "memory_bytes_predicted",
        "memory_bytes",
    }
    assert min(figures["values"].values()) > 0
    (note,) = [entry["text"] for entry in log(tmp_path / "run", "note") if "plan and fact" in entry["text"]]
    assert "GB" in note


def test_a_planner_that_fails_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Heard:
        notes: ClassVar[list[str]] = []

        def recent_seconds(self) -> list[float]:
            return []  # the median of nothing

        def tell(self, event: object) -> None:
            raise AssertionError

        def note(self, text: str) -> None:
            self.notes.append(text)

    check = PlanCheck(small(), 1, torch.device("cpu"), 1e11, 5, 0, Heard())
    for done in range(1, 40):
        check(done)
    assert len(Heard.notes) == 1
    assert "could not be held against a plan" in Heard.notes[0]
