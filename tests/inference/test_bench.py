"""`iberis bench infer` prints a table and a line of JSON; its baseline does what upstream does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from megatron_iberis.cli import main
from megatron_iberis.inference.baselines import Recomputation, StepByStep
from tests.support.decoding import likeliest_after, random_weights, reference, shape

TINY = "[model]\ndepth = 4\nwidth = 32\nheads = 2\nvocab_size = 100\nsequence_length = 64\n"


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def test_every_kind_of_weights_and_the_reference_are_measured(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "bench",
        "infer",
        "--recipe",
        recipe,
        "--batch",
        "1",
        "3",
        "--prefill",
        "20",
        "--tokens",
        "8",
        "--device",
        "cpu",
    ]
    assert main(words) == 0
    machine, _, header, *rows, last = capsys.readouterr().out.splitlines()
    assert "GB/s" in machine
    assert all(len(row) <= 80 for row in (machine, header, *rows))
    found = json.loads(last)
    kinds = ["fp32", "bf16", "int8", "reference, step by step", "reference, all again"]
    assert [(speed["what"], speed["batch"]) for speed in found["speeds"]] == [(k, b) for k in kinds for b in (1, 3)]
    assert len(rows) == 10
    for speed in found["speeds"]:
        assert 0 < speed["step_p50"] <= speed["step_p99"]
        assert speed["tokens_per_second"] == pytest.approx(speed["batch"] / speed["step_p50"])
    assert found["machine"]["read_gigabytes_per_second"] > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prefill", "60", "--tokens", "8"], "more than the model's context of 64: lower them"),
        (["--batch", "0"], "a batch and a prompt need 1 at least"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    recipe: str, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert main(["bench", "infer", "--recipe", recipe, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_the_baselines_run_the_reference() -> None:
    config = shape("attention alone")  # without convolutions, whose inputs it loses, upstream's way gives the same
    weights, ids = random_weights(config), torch.randint(64, (2, 9))
    for way in (Recomputation(config, weights), StepByStep(config, weights)):
        way.prefill(ids)
        answer = [way.last]
        for _ in range(5):
            way.step()
            answer.append(way.last)
        for prompt, found in zip(ids.tolist(), torch.cat(answer, 1).tolist(), strict=True):
            assert found == likeliest_after(reference(config, weights), prompt, found)[:-1]
