"""A recipe is its file with the command line over it, resolved by the published rules, and can be given back."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import typing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from megatron_iberis.config import ModelConfig, Recipe, SourceConfig, TrainConfig, load_recipe, save_recipe
from megatron_iberis.config.checks import bounds_of, spoken
from megatron_iberis.config.recipe import RECIPES

ALL = sorted(path.stem for path in RECIPES.glob("*.toml"))


@pytest.mark.parametrize("name", ALL)
def test_a_saved_recipe_loads_as_the_same_recipe(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(
        name, ["--evaluation.sample_prompts", '日本の|a "quoted" \\ text', "--deepspeed.flops_profiler.x", "1e-3"]
    )
    save_recipe(recipe, tmp_path / "recipe.toml")
    again = load_recipe(tmp_path / "recipe.toml")
    assert again == recipe
    assert again.evaluation.sample_prompts == ("日本の", 'a "quoted" \\ text')
    assert again.deepspeed == {"flops_profiler": {"x": 1e-3}}


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
    with pytest.raises(ValueError, match=r"train\.steps is -5: it must be at least 0"):
        load_recipe("d20", ["--train.steps", "-5"])


def test_deepspeed_settings_pass_through_with_their_types() -> None:
    words = ["--deepspeed.aio.flag", "--deepspeed.aio.number", "5", "--deepspeed.log_level", "some words"]
    assert load_recipe("d20", words).deepspeed == {"aio": {"flag": True, "number": 5}, "log_level": "some words"}


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
    explained = 0
    for source in RECIPES.parent.glob("*.py"):
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if not (isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Recipe"))):
                continue
            for field, below in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    assert isinstance(below, ast.Expr), f"{node.name}.{ast.unparse(field.target)} has no docstring"
                    explained += 1
    recipe = Recipe()
    sections = [getattr(recipe, section.name) for section in fields(recipe)]
    tables = [*(section for section in sections if is_dataclass(section)), SourceConfig]
    assert explained == len(sections) + sum(len(fields(table)) for table in tables)


def test_every_number_has_bounds_and_help_shows_them() -> None:
    page = subprocess.run(
        [sys.executable, "examples/demo.sh", "--help"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "100", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (page.returncode, page.stderr) == (0, "")
    said = " ".join(page.stdout.replace("\u2502", " ").split()).replace(", ", ",")  # lines end after commas too
    recipe = load_recipe("demo")
    for section in fields(recipe):
        config = getattr(recipe, section.name)
        for name, kind in typing.get_type_hints(type(config)).items() if is_dataclass(config) else ():
            if typing.get_origin(kind) is dict:
                continue  # it has as many names as there are in a recipe
            assert f"--{section.name}.{name} " in said
            if kind in (int, float):
                bounds = spoken(bounds_of(type(config))[name])
                setting = said.split(f"--{section.name}.{name} ")[1].split(" --")[0]
                assert f"({bounds}; default: {getattr(config, name)})".replace(", ", ",") in setting


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.toml").write_text("[train]\nsteps = 3\n")
    words = ["--run.folder=~/runs/a", "--data.val=~/val", "--data.tokenizer=~/tok"]
    recipe = load_recipe("~/own.toml", [*words, "--data.train=~/a | 0.7 ~/b|1e-1\t~/c | d~e"])
    assert recipe.train.steps == 3
    assert recipe.run.folder == f"{tmp_path}/runs/a"
    assert (recipe.data.val, recipe.data.tokenizer) == (f"{tmp_path}/val", f"{tmp_path}/tok")
    assert recipe.data.train == f"{tmp_path}/a | 0.7 {tmp_path}/b|1e-1\t{tmp_path}/c | d~e"
    assert recipe.resolved() == recipe


def test_a_recipe_may_come_from_any_editor(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\r\nsteps = 3\r\n")
    assert load_recipe(path).train.steps == 3


def test_a_wrong_recipe_is_refused_without_loading_torch() -> None:
    program = (
        "import sys; from megatron_iberis.config import load_recipe; load_recipe('d20'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'deepspeed', 'megatron.core', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0
