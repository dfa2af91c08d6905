"""A run of preference optimisation: it learns what is preferred, and goes on as if it had not been stopped."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from megatron_iberis.config import load_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.stages.preference_inputs import open_pairs
from megatron_iberis.stages.show import show
from tests.conftest import Corpus
from tests.support.preferring import WORDS, prefer, spelled_pairs, words_for, write_pairs
from tests.support.processes import start
from tests.support.ranks import Ranks
from tests.support.runs import checkpoint_tensors, log, pretrain, stop_after, words


@pytest.fixture(scope="module")
def base(one_rank: Ranks, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has read a little."""
    folder = tmp_path_factory.mktemp("base") / "run"
    settings = {"train__dtype": "fp32", "evaluation__sample_every": "0", "checkpoint__every": "0"}
    assert one_rank(pretrain, words(corpus, folder, **settings)) == [0]
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.jsonl", spelled_pairs(WORDS[:40]))


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "held_out.jsonl", spelled_pairs(WORDS[40:], seed=1))


@pytest.mark.parametrize("loss", ["length_normalised", pytest.param("sigmoid", marks=pytest.mark.full)])
def test_held_out_pairs_are_preferred_after_some_steps(
    one_rank: Ranks, base: Path, tmp_path: Path, pairs: Path, held_out: Path, loss: str
) -> None:
    """Words that it has not seen, spelled rightly or with wrong letters."""
    settings = {"preference__val": str(held_out), "preference__loss": loss, "train__epochs": "3"}
    run = tmp_path / "run"
    assert one_rank(prefer, words_for(base, run, pairs, **settings, evaluation__every="3")) == [0]
    seen = [entry for entry in log(run, "figures") if entry["group"] == "preference"]
    first, last = seen[0]["values"], seen[-1]["values"]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    assert first["accuracy"] == 0.5
    assert last["accuracy"] > 0.9
    assert last["accuracy"] > 0.5 + 4 * first["accuracy_error"]
    assert last["ranking"] > first["ranking"]
    assert last["margin"] > 0.5
    assert last["loss"] < 0.5
    steps = [entry["values"] for entry in log(run, "figures") if entry["group"] == "train"]
    assert steps[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert steps[-1]["accuracy"] > 0.9


def test_what_was_read_is_told_by_file_and_the_checkpoint_is_a_chat_models(
    one_rank: Ranks, base: Path, tmp_path: Path, pairs: Path, held_out: Path
) -> None:
    rows = spelled_pairs(WORDS[:40])
    long = {"prompt": "Spell it" * 100, "chosen": "a", "rejected": "b"}
    same = {**rows[0], "rejected": rows[0]["chosen"]}
    more = write_pairs(tmp_path / "more.jsonl", [rows[0], long, same, {**rows[1], "chosen": "-".join(WORDS)}])
    write_pairs(held_out, [*rows[3:5], *spelled_pairs(WORDS[40:])])
    settings = {"preference__data": f"{pairs}|{more}", "preference__val": str(held_out), "train__steps": "1"}
    run = tmp_path / "run"
    assert one_rank(prefer, words_for(base, run, pairs, **settings)) == [0]
    told = {e["group"]: e["values"] for e in log(run, "figures") if "pairs/" in e["group"]}
    assert told.keys() == {"pairs/pairs.jsonl", "pairs/more.jsonl", "held_out_pairs/held_out.jsonl"}
    found = told["pairs/more.jsonl"]
    assert [found[key] for key in ("read", "equal", "too_long", "cut", "kept")] == [4, 1, 1, 1, 2]
    assert told["pairs/pairs.jsonl"]["targets"] > 40 * 2
    notes = [entry["text"] for entry in log(run, "note")]
    assert "warning: 2 of the held-out pairs are among those that are trained on" in notes
    assert sum(note.startswith("reference log-probabilities of 42 pairs: worked out in ") for note in notes) == 1
    saved = load_recipe(run / "checkpoints" / "step-00000001" / "recipe.toml")
    assert (saved.run.stage, saved.optimizer.kind, len(saved.run.template)) == ("chat", "adamw", 12)


LAYOUTS = [
    (2, {"parallel__zero_stage": "2", "parallel__tp": "2"}),
    pytest.param(1, {"parallel__zero_stage": "0"}, marks=pytest.mark.full),
    pytest.param(1, {"train__dtype": "bf16"}, marks=pytest.mark.full),
    pytest.param(2, {"parallel__zero_stage": "3"}, marks=pytest.mark.full),
]


@pytest.mark.parametrize(("processes", "layout"), LAYOUTS)
def test_resume_is_bit_exact_in_an_epoch_and_at_its_border(
    request: pytest.FixtureRequest,
    base: Path,
    tmp_path: Path,
    pairs: Path,
    held_out: Path,
    processes: int,
    layout: dict[str, str],
) -> None:
    ranks: Ranks = request.getfixturevalue("one_rank" if processes == 1 else "two_ranks")
    settings = {**layout, "train__epochs": "2", "checkpoint__every": "1", "preference__val": str(held_out)}
    whole, start_from = tmp_path / "whole", Path(shutil.copytree(base, tmp_path / "base"))
    assert ranks(prefer, words_for(start_from, whole, pairs, **settings)) == [0] * processes
    shutil.rmtree(start_from)  # nobody needs it any more
    per_epoch = open_pairs(load_recipe("dpo_demo", words_for(base, tmp_path / "x", pairs))).train.steps_per_epoch
    steps = [entry["step"] for entry in log(whole, "step")]
    assert log(whole, "step")[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert steps == list(range(1, 2 * per_epoch + 1))
    wanted = checkpoint_tensors(whole / "checkpoints" / f"step-{steps[-1]:08d}")
    assert any(name.endswith("c_fc.weight.square") for name in wanted), "AdamW has all"
    for stopped_after in (per_epoch - 1, per_epoch):
        stopped = tmp_path / f"stopped{stopped_after}"
        stop_after(whole, stopped, stopped_after)
        again = words_for(start_from, stopped, pairs, **settings, run__resume="true")
        assert ranks(prefer, again) == [0] * processes
        found = checkpoint_tensors(stopped / "checkpoints" / f"step-{steps[-1]:08d}")
        assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []
        assert values(stopped) == values(whole)


def values(folder: Path) -> list[object]:
    return [[entry["group"], entry["step"], entry["values"]] for entry in log(folder, "figures")]


def test_a_resumed_run_with_other_pairs_or_without_references_is_refused(
    one_rank: Ranks, base: Path, tmp_path: Path, pairs: Path
) -> None:
    run, start_from = tmp_path / "run", Path(shutil.copytree(base, tmp_path / "base"))
    assert one_rank(prefer, words_for(start_from, run, pairs, train__steps="1")) == [0]

    def resumed(name: str, **settings: str) -> str:
        copy = Path(shutil.copytree(run, tmp_path / name, dirs_exist_ok=True))
        again = words_for(start_from, copy, pairs, train__steps="2", run__resume="true", **settings)
        said: str = one_rank(what_it_says, again)[0]
        return said

    trained = "and the model that the run began with has been trained since"
    assert "has optimizer.kind = adamw, not muon" in resumed("muon", optimizer__kind="muon")
    write_pairs(pairs, spelled_pairs(WORDS[1:41]))
    said = resumed("others")
    assert said.startswith(f"{pairs}:")
    assert trained in said
    write_pairs(pairs, spelled_pairs(WORDS[:39]))
    assert f"of 40 pairs, and there are 39 now, {trained}" in resumed("fewer")
    write_pairs(pairs, spelled_pairs(WORDS[:40]))
    manifest = next(start_from.glob("checkpoints/*/manifest.json"))
    recorded = json.loads(manifest.read_text())
    recorded["files"]["model-00000.safetensors"]["xxh3_128"] = "0"
    manifest.write_text(json.dumps(recorded))
    assert f"are of another model, {trained}" in resumed("model")
    shutil.rmtree(run / "references")
    assert f"is missing, {trained}" in resumed("none")


def what_it_says(overrides: list[str]) -> str:
    """Runs on a rank: the sentence that the stage ends with."""
    try:
        prefer(overrides)
    except InputError as error:
        return str(error)
    return "nothing"


def test_fewer_pairs_than_a_step_has_are_trained_on(one_rank: Ranks, base: Path, tmp_path: Path) -> None:
    few = write_pairs(tmp_path / "few.jsonl", spelled_pairs(WORDS[:1]))
    run = tmp_path / "run"
    assert one_rank(prefer, words_for(base, run, few, train__epochs="2")) == [0]
    losses = [entry["loss"] for entry in log(run, "step")]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[1] < losses[0]
    notes = [entry["text"] for entry in log(run, "note")]
    assert sum(note.startswith("an epoch has 1 rows and a step 8: each step trains on all") for note in notes) == 1


def refused(base: Path, tmp_path: Path, pairs: Path, **settings: str) -> str:
    with pytest.raises(InputError) as caught:
        open_pairs(load_recipe("dpo_demo", words_for(base, tmp_path / "run", pairs, **settings)))
    return str(caught.value)


def test_what_cannot_train_is_one_sentence(base: Path, tmp_path: Path, pairs: Path) -> None:
    assert "preference.data is empty: give files" in refused(base, tmp_path, pairs, preference__data="")
    assert "run.start_from is not set" in refused(base, tmp_path, pairs, run__start_from="")
    own = {"data__tokenizer": str(base / "tokenizer"), "run__start_from": ""}
    assert "run.start_from is not set" in refused(base, tmp_path, pairs, **own)
    assert "other.jsonl is not there" in refused(
        base, tmp_path, pairs, preference__data=str(tmp_path / "other.jsonl")
    )
    same = write_pairs(tmp_path / "same.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "b"}] * 3)
    said = refused(base, tmp_path, same)
    assert (
        f"no pair of preference.data can be compared ({same}: 3 pairs read, 3 dropped as equal, 0 as too long" in said
    )
    short = {"model__sequence_length": "8", "train__batch_tokens": "64"}
    assert "40 as too long, 0 kept" in refused(base, tmp_path, pairs, **short)
    warm = refused(base, tmp_path, pairs, optimizer__start="warm")
    assert "has the state of muon" in warm
    assert 'set optimizer.start to "fresh"' in warm


def test_what_is_wrong_with_a_pair_is_said_before_torch_is_imported(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": "b"}\n')
    overrides = words_for(base, tmp_path / "run", broken)
    code = (
        f"import sys; sys.argv = ['x', '--recipe', 'dpo_demo', *{overrides!r}]\n"
        "from megatron_iberis.stages.launch import launch\n"
        "try: launch('preference', 'dpo_d20')\n"
        "except SystemExit as end: sys.exit(0 if end.code == 2 and 'torch' not in sys.modules else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"error: {broken}:2: the row has no 'rejected'" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_deepspeed_and_bash_start_it(base: Path, tmp_path: Path, pairs: Path) -> None:
    run = tmp_path / "run"
    command = ["bash", "examples/dpo.sh", "--recipe", "dpo_demo", *words_for(base, run, pairs, train__steps="2")]
    said, _ = (process := start(*command)).communicate(timeout=240)
    assert process.returncode == 0, said
    assert len(log(run, "step")) == 2


def test_data_show_marks_what_each_answer_says(
    base: Path, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(load_recipe("dpo_demo", words_for(base, tmp_path / "run", pairs)), 0, 18)
    lines = capsys.readouterr().out.split("\n")
    assert lines[0].startswith("pairs.jsonl: 40 pairs read, 0 dropped as equal, ")
    marked = [
        "".join(letter for letter, mark in zip(above, below, strict=False) if mark == "^")
        for above, below in pairwise(lines)
        if below and set(below) <= {"^", " "}
    ]
    answers = [pair[side] for pair in spelled_pairs(WORDS[:40]) for side in ("chosen", "rejected")]
    assert sorted("".join(marked).split("<|assistant_end|>")) == sorted(["", *answers])
