"""`train.device_batch = "auto"` is the largest micro-batch that fits, and the run is that of the number."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_iberis.config import load_recipe, save_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.planner.layouts import own_layout, recipe_at
from megatron_iberis.planner.memory import FITS_BELOW
from megatron_iberis.planner.micro_batch import largest_that_fits
from megatron_iberis.planner.plan import predict_memory
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, words

AUTO = ("--train.device_batch=auto", "--train.batch_tokens=8192")  # 32 rows


def needed(rows: int) -> float:
    recipe = load_recipe("demo", [*AUTO, f"--train.device_batch={rows}"])
    layout = own_layout(recipe, 1)
    assert layout
    _, memory, overhead = predict_memory(recipe_at(recipe, layout), layout, True)
    return memory.tensors + overhead


@pytest.mark.parametrize("rows", [4, 16])
def test_the_largest_that_fits_is_found(rows: int) -> None:
    recipe = load_recipe("demo", AUTO)
    enough = needed(rows) / FITS_BELOW + 1
    assert largest_that_fits(recipe, 1, enough, gpu=True) == rows
    assert enough * FITS_BELOW < needed(2 * rows)


def test_ranks_share_the_rows_of_a_step() -> None:
    assert largest_that_fits(load_recipe("demo", AUTO), 8, 1e12, gpu=True) == 4
    assert largest_that_fits(load_recipe("demo", [*AUTO, "--parallel.tp=2"]), 8, 1e12, gpu=True) == 8


def test_where_one_row_is_too_much_it_is_told() -> None:
    with pytest.raises(InputError, match="one row a micro-batch needs"):
        largest_that_fits(load_recipe("demo", AUTO), 1, 1e6, gpu=True)


def test_the_run_and_its_recipe_have_the_number(one_rank: Ranks, tmp_path: Path, corpus: Corpus) -> None:
    run = tmp_path / "run"
    settings = words(corpus, run, train__device_batch="auto", train__steps="1", evaluation__sample_every="0")
    assert one_rank(pretrain, settings) == [0]
    recipe = load_recipe(run / "recipe.toml")
    assert recipe.train.device_batch * recipe.model.sequence_length == recipe.train.batch_tokens  # memory for all
    assert len(log(run, "step")) == 1


def test_auto_is_kept_and_refused_where_nothing_is_planned(tmp_path: Path) -> None:
    save_recipe(load_recipe("demo", AUTO), tmp_path / "recipe.toml")
    assert load_recipe(tmp_path / "recipe.toml").train.device_batch == 0
    with pytest.raises(InputError, match="cannot be found for pairs and answers"):
        load_recipe("demo", [*AUTO, "--preference.data=pairs.jsonl"])
    with pytest.raises(InputError, match="must be a whole number"):
        load_recipe("demo", ["--train.steps=auto"])
