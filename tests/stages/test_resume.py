"""A run that was stopped is resumed as if it had not been; what is other than before is told or refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_iberis.checkpoint.resume import check_same_run
from megatron_iberis.config import ModelConfig, Recipe, load_recipe, save_recipe
from megatron_iberis.data.token_files.identity import identity
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import checkpoint_tensors, log, pretrain, stop_after, words

LAYOUTS = [
    (1, {"parallel__zero_stage": "0", "train__dtype": "fp32"}),
    (1, {"parallel__zero_stage": "1", "train__dtype": "bf16"}),
    (2, {"parallel__zero_stage": "1", "train__dtype": "bf16"}),
    (2, {"parallel__zero_stage": "3", "train__dtype": "fp32"}),
    (2, {"parallel__zero_stage": "2", "train__dtype": "bf16", "parallel__tp": "2"}),
    pytest.param(2, {"train__dtype": "bf16", "train__compile": "true"}, marks=pytest.mark.full),
]


@pytest.mark.parametrize(("processes", "layout"), LAYOUTS)
def test_resume_is_bit_exact(
    request: pytest.FixtureRequest, tmp_path: Path, corpus: Corpus, processes: int, layout: dict[str, str]
) -> None:
    ranks: Ranks = request.getfixturevalue("one_rank" if processes == 1 else "two_ranks")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert ranks(pretrain, words(corpus, whole, **layout)) == [0] * processes
    stop_after(whole, stopped, 5)
    assert ranks(pretrain, words(corpus, stopped, run__resume="true", **layout)) == [0] * processes

    wanted, found = (checkpoint_tensors(f / "checkpoints" / "step-00000010") for f in (whole, stopped))
    assert wanted.keys() == found.keys()
    different = [name for name in wanted if not torch.equal(wanted[name], found[name])]
    assert different == []

    losses = [[entry["loss"] for entry in log(f, "step")] for f in (whole, stopped)]
    assert losses[0] == losses[1]
    assert len(losses[1]) == 10
    curves = EventAccumulator(str(stopped / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("train/loss")] == list(range(1, 11))


def test_what_changed_is_told_and_a_finished_run_says_so(one_rank: Ranks, tmp_path: Path, corpus: Corpus) -> None:
    run, text = tmp_path / "run", tmp_path / "text"
    place(corpus.train, text)
    settings = {"train__steps": "2", "data__train": str(text), "evaluation__sample_every": "0"}
    assert one_rank(pretrain, words(corpus, run, **settings)) == [0]
    assert one_rank(pretrain, words(corpus, run, run__resume="true", **settings)) == [0]
    said = [entry["text"] for entry in log(run, "note")]
    assert any(line.startswith("the run is finished: 2 steps are done and train.steps is 2") for line in said)
    assert not any("up to here" in line for line in said)

    place(corpus.val, text)
    other = {**settings, "train__steps": "4", "data__val": corpus.train, "optimizer__clip": "0.5"}
    assert one_rank(pretrain, words(corpus, run, run__resume="true", **other)) == [0]
    told = [line for line in (entry["text"] for entry in log(run, "note")) if "up to here" in line]
    assert told[:3] == [
        "optimizer.clip was 1.0 up to here and is 0.5 from now on",
        "train.steps was 2 up to here and is 4 from now on",
        f"data.val was {corpus.val} up to here and is {corpus.train} from now on",
    ]
    assert told[3].startswith(f"{text} is another file from now on: ")
    assert len(told) == 4
    assert len(log(run, "step")) == 4


def place(source: str, target: Path) -> None:
    """Puts a token file under another name."""
    for ending in (".bin", ".idx", ".json"):
        shutil.copy(source + ending, f"{target}{ending}")


@pytest.fixture
def stopped(tmp_path: Path, corpus: Corpus) -> tuple[Path, Recipe]:
    """A checkpoint as far as resuming compares it, and the recipe that it was saved with."""
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    recipe = load_recipe("demo", words(corpus, tmp_path / "run"))
    save_recipe(recipe, checkpoint / "recipe.toml")
    shutil.copytree(corpus.tokenizer, checkpoint / "tokenizer")
    identities = {corpus.train: identity(TokenFile(corpus.train))}
    (checkpoint / "state.json").write_text(json.dumps({"token_files": identities}))
    return checkpoint, recipe


REFUSED = {"optimizer.kind", "train.batch_tokens", "train.seed"} | {f"model.{f.name}" for f in fields(ModelConfig)}
UNTOLD = {
    "run.folder",
    "run.resume",
    "run.start_from",
    "data.tokenizer",
    "train.target_flops",
    "train.tokens_per_parameter",
}
SECTIONS = {section.name: getattr(Recipe(), section.name) for section in fields(Recipe)}
SETTINGS = [f"{name}.{f.name}" for name, section in SECTIONS.items() if name != "deepspeed" for f in fields(section)]


@pytest.mark.parametrize("name", [*SETTINGS, "deepspeed"])
def test_every_setting_that_changed_is_refused_or_told(
    stopped: tuple[Path, Recipe], corpus: Corpus, name: str
) -> None:
    checkpoint, recipe = stopped
    section, _, setting = name.partition(".")
    table = getattr(recipe, section)
    before = getattr(table, setting) if setting else table
    now = {"a": 1} if not setting else ("another",) if isinstance(before, tuple) else f"{before}1"
    changed = replace(recipe, **{section: replace(table, **{setting: now}) if setting else now})
    tokenizer = Tokenizer.load(corpus.tokenizer)
    if name in REFUSED:
        with pytest.raises(InputError, match=f"has {name} = {before}, not {now}: leave it as it was"):
            check_same_run(changed, tokenizer, {}, checkpoint)
    else:
        told = check_same_run(changed, tokenizer, {}, checkpoint)
        assert [line.split(" was ")[0] for line in told] == ([] if name in UNTOLD else [name])


def test_megatrons_order_is_of_one_number_of_steps(stopped: tuple[Path, Recipe], corpus: Corpus) -> None:
    checkpoint, recipe = stopped
    megatron = replace(recipe, data=replace(recipe.data, packing="megatron"))
    save_recipe(megatron, checkpoint / "recipe.toml")
    with pytest.raises(InputError, match=r"has train.steps = 10, not 11"):
        check_same_run(
            replace(megatron, train=replace(recipe.train, steps=11)), Tokenizer.load(corpus.tokenizer), {}, checkpoint
        )


def test_another_tokenizer_is_refused(stopped: tuple[Path, Recipe], corpus: Corpus) -> None:
    checkpoint, recipe = stopped
    assert check_same_run(recipe, Tokenizer.load(corpus.tokenizer), {}, checkpoint) == []
    other = cast(Tokenizer, SimpleNamespace(fingerprint="another"))
    with pytest.raises(InputError, match="was trained with another tokenizer"):
        check_same_run(recipe, other, {}, checkpoint)


@pytest.mark.parametrize("change", ["nothing", "tokens", "manifest", "no manifest", "other index"])
def test_a_token_file_with_other_content_is_told(
    stopped: tuple[Path, Recipe], corpus: Corpus, tmp_path: Path, change: str
) -> None:
    checkpoint, recipe = stopped
    copy = tmp_path / "copy"
    place(corpus.train, copy)
    tokens, manifest, index = (copy.with_suffix(suffix) for suffix in (".bin", ".json", ".idx"))
    if change == "tokens":  # of the same number
        tokens.write_bytes(tokens.read_bytes()[::-1])
    elif change == "manifest":  # of tokens that were changed in a place that no sample of the file shows
        manifest.write_text(json.dumps({"sha256": {"bin": "another", "idx": "another"}}))
    elif change == "no manifest":
        manifest.unlink()
    elif change == "other index":
        place(corpus.val, tmp_path / "other")
        index.write_bytes((tmp_path / "other.idx").read_bytes())
        tokens.write_bytes((tmp_path / "other.bin").read_bytes())
    told = check_same_run(
        recipe, Tokenizer.load(corpus.tokenizer), {corpus.train: identity(TokenFile(copy))}, checkpoint
    )
    assert len(told) == (0 if change in ("nothing", "no manifest") else 1)
    assert all(line.startswith(f"{corpus.train} is another file from now on: ") for line in told)
