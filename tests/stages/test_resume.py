"""A run that was stopped goes on as if it had not been."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_iberis.checkpoint.resume import check_same_run
from megatron_iberis.config import load_recipe, save_recipe
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


def test_other_training_data_than_before_is_told(one_rank: Ranks, tmp_path: Path, corpus: Corpus) -> None:
    run = tmp_path / "run"
    assert one_rank(pretrain, words(corpus, run, train__steps="2")) == [0]
    other = words(corpus, run, train__steps="4", run__resume="true", data__train=corpus.val)
    assert one_rank(pretrain, other) == [0]
    said = [entry["text"] for entry in log(run, "note")]
    assert f"data.train was {corpus.train} up to here and is {corpus.val} from now on" in said
    assert "train.steps was 2 up to here and is 4 from now on" in said


def test_a_run_does_not_go_on_with_another_tokenizer(tmp_path: Path, corpus: Corpus) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    recipe = load_recipe("demo", words(corpus, tmp_path / "run"))
    save_recipe(recipe, checkpoint / "recipe.toml")
    shutil.copytree(corpus.tokenizer, checkpoint / "tokenizer")
    own = Tokenizer.load(corpus.tokenizer)
    assert check_same_run(recipe, own, checkpoint) == []
    other = cast(Tokenizer, SimpleNamespace(fingerprint="another"))
    with pytest.raises(InputError, match="was trained with another tokenizer"):
        check_same_run(recipe, other, checkpoint)
