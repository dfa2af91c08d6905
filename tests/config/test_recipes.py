"""A recipe is its file with the command line over it, resolved by the published rules, and can be given back."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_iberis.config import ModelConfig, Recipe, TrainConfig, load_recipe, save_recipe
from megatron_iberis.config.recipe import RECIPES

ALL = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", ALL)
def test_a_saved_recipe_loads_as_the_same_recipe(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(
        name, ["--evaluation.sample_prompts", '日本の|a "quoted" \\ text', "--deepspeed.zero.x", "1e-3"]
    )
    save_recipe(recipe, tmp_path / "recipe.toml")
    again = load_recipe(tmp_path / "recipe.toml")
    assert again == recipe
    assert again.evaluation.sample_prompts == ("日本の", 'a "quoted" \\ text')
    assert again.deepspeed == {"zero": {"x": 1e-3}}


def test_resolving_twice_changes_nothing() -> None:
    for name in ALL:
        recipe = load_recipe(name)
        assert recipe.resolved() == recipe


def test_both_forms_of_an_override_mean_the_same() -> None:
    spaced = load_recipe("d12", ["--train.steps", "7", "--parallel.tp", "2", "--parallel.sequence_parallel"])
    joined = load_recipe("d12", ["--train.steps=7", "--parallel.tp=2", "--parallel.sequence_parallel=true"])
    assert spaced == joined
    assert (spaced.train.steps, spaced.parallel.tp, spaced.parallel.sequence_parallel) == (7, 2, True)


def test_the_last_override_wins() -> None:
    assert load_recipe("d20", ["--train.steps", "5", "--train.steps=6"]).train.steps == 6


def test_overrides_take_their_settings_type() -> None:
    words = "--train.steps 1e3 --optimizer.clip 2 --optimizer.eps=1e-8 --run.resume True --run.folder=a=b"
    recipe = load_recipe("d20", [*words.split(), "--evaluation.sample_prompts=", "--parallel.zero_stage", "2"])
    assert recipe.train.steps == 1000
    assert isinstance(recipe.optimizer.clip, float)
    assert (recipe.optimizer.clip, recipe.optimizer.eps) == (2.0, 1e-8)
    assert recipe.run.resume is True
    assert recipe.run.folder == "a=b"
    assert recipe.evaluation.sample_prompts == ()
    assert recipe.parallel.zero_stage == 2


def test_a_negative_number_is_a_value_and_no_setting() -> None:
    with pytest.raises(ValueError, match=r"train\.steps must not be negative"):
        load_recipe("d20", ["--train.steps", "-5"])


def test_deepspeed_settings_pass_through_with_their_types() -> None:
    words = ["--deepspeed.a.flag", "--deepspeed.a.number", "5", "--deepspeed.text", "some words"]
    assert load_recipe("d20", words).deepspeed == {"a": {"flag": True, "number": 5}, "text": "some words"}


def test_depth_sets_the_width_the_heads_and_the_mlp() -> None:
    english = load_recipe("d20", ["--model.depth", "26"]).model
    assert (english.width, english.heads, english.kv_heads, english.mlp_hidden) == (1664, 13, 13, 6656)
    japanese = load_recipe("d12", ["--model.depth", "26"]).model
    assert (japanese.width, japanese.heads, japanese.head_size, japanese.mlp_hidden) == (1664, 26, 64, 9152)


def test_sizes_that_are_set_stay_set() -> None:
    model = load_recipe("d20", ["--model.width", "512", "--model.heads", "8", "--model.mlp_hidden", "999"]).model
    assert (model.depth, model.width, model.heads, model.head_size, model.mlp_hidden) == (20, 512, 8, 64, 999)


@pytest.mark.parametrize(
    ("rate", "layers"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [1, 4, 5]), (4, [1, 5]), (9, [1, 5])]
)
def test_layer_rule(rate: int, layers: list[int]) -> None:
    """Attention where the layer modulo the rate is 1, and at the end; a rate of 1 is attention throughout."""
    assert ModelConfig(depth=6, slc_rate=rate).attention_layers == layers


@pytest.mark.parametrize(("name", "steps", "flops"), [("d12", 25_116, 2.0058e9), ("d20", 20_677, 2.9691e9)])
def test_published_horizon_and_compute(name: str, steps: int, flops: float) -> None:
    recipe = load_recipe(name)
    assert recipe.train.steps == steps
    assert recipe.model.flops_per_token() == pytest.approx(flops, rel=2e-5)
    assert recipe.train.batch_tokens == 524_288


def test_horizon_is_steps_before_compute_before_ratio() -> None:
    model = load_recipe("d20").model
    train = TrainConfig(steps=10, target_flops=1e18, tokens_per_parameter=20.0)
    assert train.horizon(model) == 10
    by_compute = replace(train, steps=0)
    assert by_compute.horizon(model) == round(1e18 / (model.flops_per_token() * 524_288))
    assert replace(by_compute, target_flops=0.0).horizon(model) == 20 * 542_035_200 // 524_288
    assert replace(by_compute, target_flops=1.0).horizon(model) == 1  # never nothing


def test_accumulation_fills_the_batch_up() -> None:
    recipe = load_recipe("d20")
    assert [recipe.train.accumulation(recipe.model, ranks) for ranks in (1, 2, 8)] == [8, 4, 1]


def test_newton_schulz_follows_the_precision_unless_it_is_set() -> None:
    assert load_recipe("d20").optimizer.newton_schulz_dtype == "bf16"
    assert load_recipe("d20", ["--train.dtype", "fp32"]).optimizer.newton_schulz_dtype == "fp32"
    set_by_hand = ["--train.dtype", "fp32", "--optimizer.newton_schulz_dtype", "bf16"]
    assert load_recipe("d20", set_by_hand).optimizer.newton_schulz_dtype == "bf16"


def test_a_recipe_cannot_be_changed_by_accident() -> None:
    with pytest.raises(AttributeError):
        Recipe().train.steps = 5  # type: ignore[misc]


def test_every_setting_is_explained() -> None:
    """The docstring below each field is what the documentation and --help are made of."""
    import ast
    import inspect

    from megatron_iberis.config import schema

    for node in ast.parse(inspect.getsource(schema)).body:
        if isinstance(node, ast.ClassDef):
            for field, below in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    assert isinstance(below, ast.Expr), f"{node.name}.{ast.unparse(field.target)} has no docstring"


def test_a_wrong_recipe_is_refused_without_loading_torch() -> None:
    program = (
        "import sys; from megatron_iberis.config import load_recipe; load_recipe('d20'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'deepspeed', 'megatron.core', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0
