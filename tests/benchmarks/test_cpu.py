"""`make bench` at a tiny size: its baseline trains as upstream does, what it prints, and what it compares with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from benchmarks.cpu import __main__ as command
from benchmarks.cpu import growth, results, rows
from benchmarks.cpu.contenders import bf16_products
from benchmarks.cpu.rows import Row, Target
from benchmarks.cpu.shapes import Scale, Shape, full
from benchmarks.cpu.upstream import UpstreamTraining, newton_schulz
from megatron_iberis.config import ModelConfig, OptimizerConfig
from megatron_iberis.errors import InputError
from megatron_iberis.training.newton_schulz import orthogonalize
from tests.support import golden_runs
from tests.support.golden_cases import GOLDEN, tensors

ROOT = Path(__file__).parents[2]
MODEL = ModelConfig(depth=2, width=32, head_size=16, vocab_size=128, sequence_length=16).resolved()
TINY = Scale(
    Shape("t4", MODEL, 2),
    Shape("t12", replace(MODEL, inner_norm=True), 1),
    rounds=2,
    warm_up=1,
    loss_rounds=2,
    memory_steps=1,
)


# ---- the baseline


@pytest.mark.parametrize("variant", ["en", "jp"])
def test_the_baseline_trains_as_upstream_does(variant: str) -> None:
    recipe = golden_runs.recipe("traj", variant, 4)
    start = tensors(f"{variant}_gqa", "weights")
    start = {k: torch.zeros_like(v) if k == "lm_head.weight" or "c_proj" in k else v for k, v in start.items()}
    training = UpstreamTraining(recipe.model, recipe.optimizer, recipe.train.steps, "fp32", start)
    batches = load_file(GOLDEN / "traj" / "batches.safetensors")
    pairs = zip(batches["input_ids"], batches["targets"], strict=True)
    found = [training.step(number, tokens, targets) for number, (tokens, targets) in enumerate(pairs)]
    golden = golden_runs.trajectory("traj", variant)["C_f32tab_f32ns_zeroinit"]["loss"]
    assert len(found) == 20
    assert found == pytest.approx(golden, rel=0, abs=1e-5)


@pytest.mark.parametrize("shape", [(24, 24), (64, 16), (16, 64)])
def test_its_newton_schulz_is_ours(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours = orthogonalize(matrix[None], 5)[0]
    torch.testing.assert_close(newton_schulz(matrix, 5, torch.float32), ours, rtol=0, atol=1e-5)


def test_in_bf16_it_has_fp32_weights_but_for_the_embedding_and_learns() -> None:
    torch.manual_seed(0)
    training = UpstreamTraining(MODEL, OptimizerConfig(), 1000, "bf16")
    dtypes = {name: p.dtype for name, p in training.model.named_parameters()}
    assert [name for name, dtype in dtypes.items() if dtype != torch.float32] == ["transformer.wte.weight"]
    seen = []
    training.model.transformer.h[0].mlp.c_fc.register_forward_hook(lambda *x: seen.append(x[2].dtype))
    tokens = torch.randint(MODEL.vocab_size, (2, 17))
    found = [training.step(number, tokens[:, :-1], tokens[:, 1:]) for number in range(5)]
    assert set(seen) == {torch.bfloat16}
    assert found[-1] < found[0] - 0.5


def test_the_precision_of_products_is_as_before_afterwards() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision

    @bf16_products()
    def fails() -> None:
        raise KeyError(torch.backends.mkldnn.matmul.fp32_precision)

    with pytest.raises(KeyError, match="bf16"):
        fails()
    assert torch.backends.mkldnn.matmul.fp32_precision == before


# ---- rows


def test_a_target_is_met_from_its_own_side() -> None:
    def met(unit: str, target: Target | None) -> bool:
        return Row("s", "w", unit, 20.0, 10.0, 2.0, target).met

    assert met("tokens/s", Target(2.0))
    assert not met("tokens/s", Target(2.1))
    assert met("MB", Target(2.0))
    assert not met("MB", Target(1.9))
    assert met("ms", Target(20.0, of_ratio=False))
    assert not met("ms", Target(19.0, of_ratio=False))
    assert met("ms", None)


def test_steps_take_turns_and_the_ratio_is_of_rounds() -> None:
    order: list[str] = []
    found = rows.in_turns({name: partial(order.append, name) for name in "ab"}, rounds=2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}
    row = rows.speed_row("s", "w", 100, [1.0, 2.0, 4.0], [2.0, 6.0, 4.0])
    assert (row.ours, row.baseline, row.ratio) == (50.0, 25.0, 2.0)


def test_the_large_shape_is_left_out_with_a_reason() -> None:
    assert "--quick" in rows.why_without_large(TINY, quick=True)
    assert rows.why_without_large(replace(TINY, large_needs=0.0), quick=False) == ""
    assert "it needs 1000000 GB" in rows.why_without_large(replace(TINY, large_needs=1e15), quick=False)


# ---- comparing


ROW = Row("forward + backward d4", "bf16", "tokens/s", 6000.0, 2500.0, 2.4)
MEMORY = Row("peak memory of 3 steps d12", "bf16", "MB", 600.0, 1000.0, 0.6)


def compared(path: Path, monkeypatch: pytest.MonkeyPatch, now: Sequence[Row], *arguments: str) -> int:
    """The command's exit code where it would measure `now`."""
    monkeypatch.setattr(rows, "measure", lambda *_: list(now))
    return command.run(lambda: command.main(["--threads=1", "--compare", str(path), *arguments], TINY))


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    path = tmp_path / "earlier.json"
    results.write(path, results.Measurement(results.Setting.here(TINY, 1), [ROW, MEMORY]))
    return path


def test_as_good_as_earlier_passes(
    earlier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = replace(ROW, ours=600.0, baseline=250.0)  # the machine was slower: the ratio counts
    small = [replace(slower, ratio=2.4 * 0.951), replace(MEMORY, ratio=0.6 * 1.049)]
    assert compared(earlier, monkeypatch, small) == 0
    assert compared(earlier, monkeypatch, [replace(ROW, ratio=9.0)]) == 0  # with --quick, there are fewer rows
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("row", [replace(ROW, ratio=2.4 * 0.94), replace(MEMORY, ratio=0.6 * 1.06)])
def test_more_than_5_percent_worse_fails_in_a_sentence(
    row: Row, earlier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = earlier.with_name("now.json")
    assert compared(earlier, monkeypatch, [row], "--output", str(output)) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert row.section in sentence
    assert sentence.endswith("6 % worse.")
    assert json.loads(output.read_bytes())["rows"][0]["ratio"] == row.ratio


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["setting"]["machine"].update(processor="Abacus"), "another machine"),
        (lambda found: found["setting"].update(threads=3), "other threads"),
        (lambda found: found["setting"]["shapes"]["t4"].update(rows=9), "other shapes"),
        (lambda found: found["rows"][0].update(ratio=float("nan")), "no result of this benchmark"),
        (lambda found: found["rows"][0].pop("ratio"), "no result of this benchmark"),
        (lambda found: found.pop("setting"), "no result of this benchmark"),
        (lambda found: found["rows"].clear(), "none of these rows"),
    ],
)
def test_another_machine_or_shape_or_a_broken_file_is_refused(
    change: Callable[[Any], object],
    said: str,
    earlier: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = json.loads(earlier.read_bytes())
    change(found)
    earlier.write_text(json.dumps(found))
    assert compared(earlier, monkeypatch, [ROW]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert said in sentence


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"rows": 1}'])
def test_what_is_no_measurement_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match="no result of this benchmark"):
        results.read(tmp_path / "x", results.Setting.here(TINY, 1))


# ---- what is printed


def test_the_table_is_readable_at_80_columns() -> None:
    label = "fp32, bf16 products, compiled"
    found = [
        Row("forward + backward d12", label, "tokens/s", 123456.7, 65432.1, 1.8868, Target(1.6)),
        Row("whole step d12", "bf16, compiled / upstream bf16", "tokens/s", 90.0, 60.0, 1.5, Target(1.9)),
        Row("loss beyond its products d12", "bf16", "ms", 21.26, 104.2, 0.2, Target(30, of_ratio=False)),
        Row("peak memory of 3 steps d12", "bf16 / upstream bf16", "MB", 12345.0, 23456.0, 0.53, Target(0.6)),
    ]
    printed = io.StringIO()
    results.show(found, "Some processor", Console(file=printed, width=200))
    text = printed.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for whole in (label, "bf16, compiled / upstream bf16", "123,457", ">= 1.6 met", ">= 1.9 missed"):
        assert whole in text
    assert "<= 30 ms met" in text
    assert "<= 0.6 met" in text


def test_the_published_shapes_are_d4_and_the_recipe_d12() -> None:
    small, large = full().small, full().large
    assert (small.model.depth, small.model.width, small.rows, small.tokens) == (4, 256, 4, 2048)
    assert (large.model.parameter_count(), large.tokens) == (376_240_128, 512)
    assert large.optimizer.matrix_lr == 0.025
    assert {small.optimizer.newton_schulz_dtype, large.optimizer.newton_schulz_dtype} == {"bf16"}


# ---- the whole command


@pytest.mark.full
def test_the_whole_command_at_a_tiny_size(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    program = (
        "from benchmarks.cpu.__main__ import main; from tests.benchmarks.test_cpu import TINY; import sys; "
        "sys.exit(main(sys.argv[1:], TINY))"
    )
    command_line = [sys.executable, "-c", program, "--quick", "--threads=1", "--output", str(output)]
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}  # layers are compiled for a minute
    done = subprocess.run(command_line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--quick asks for that" in done.stdout
    found = results.read(output, results.Setting.here(TINY, 1))
    sections = list(dict.fromkeys(row.section for row in found))
    assert sections == [
        "forward + backward t4",
        "loss beyond its products t4",
        "whole step t4",
        "peak memory of 1 steps t4",
    ]
    assert all(row.baseline > 0 and row.ratio > 0 for row in found if row.unit != "ms")


def test_growth_tells_what_dominates_and_draws_it() -> None:
    sweep = growth.SWEEPS[0]
    points = [
        growth.Point(4, 2048, 6000.0, 800.0, {"loss": 1.0, "layers": 2.0, "optimizer": 1.0}),
        growth.Point(32, 2048, 900.0, 4000.0, {"loss": 1.0, "layers": 4.0, "optimizer": 5.0}),
    ]
    lines = growth.table(sweep, points).splitlines()
    assert lines[2] == "| 4 | 2,048 | 6,000 | 800 | 25% | 50% | 25% | layers |"
    assert lines[3].endswith("| 10% | 40% | 50% | optimizer |")
    assert growth.picture(sweep, points).startswith(b"\x89PNG")
    assert [growth.SWEEPS[1].shape(length).tokens for length in (512, 8192, 32768)] == [8192, 8192, 32768]
    assert [growth.SWEEPS[2].shape(2**17).model.vocab_size, sweep.shape(32).model.depth] == [131072, 32]
