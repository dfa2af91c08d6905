"""Which stage a recipe is of, and what tells a run from another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from megatron_iberis.config import load_recipe
from megatron_iberis.config.stage import LABELS, TITLES, identity_of, stage_of


@pytest.mark.parametrize("size", ["d12", "d20", "demo"])
def test_the_stage_of_each_recipe_is_told(size: str) -> None:
    assert stage_of(load_recipe(size)) == "base"
    assert stage_of(load_recipe(f"mid_{size}")) == "mid"
    assert stage_of(load_recipe(f"sft_{size}")) == "sft"
    assert stage_of(load_recipe(f"dpo_{size}", ["--preference.data=pairs.jsonl"])) == "dpo"
    recipe = load_recipe(f"rl_{size}")
    assert stage_of(replace(recipe, reinforce=replace(recipe.reinforce, active=True))) == "rl"
    assert LABELS.keys() == TITLES.keys()


def test_a_run_is_told_from_others_by_what_it_is_and_not_by_how_long_it_trains() -> None:
    recipe = load_recipe("demo")
    assert identity_of(load_recipe("demo", ["--train.steps=3", "--run.resume"])) == identity_of(recipe)
    for other in ("--run.folder=other", "--model.depth=5", "--run.start_from=x", "--train.seed=1"):
        assert identity_of(load_recipe("demo", [other])) != identity_of(recipe)
