"""A mixture is a table in the recipe: kept when it is saved, and each number within the command line's reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_iberis.config import SourceConfig, load_recipe, save_recipe
from megatron_iberis.errors import InputError

SAVED = ["--tasks.mixture.mine.task", "~/a b/私の.jsonl", "--tasks.mixture.mine.settings.language", "ja"]


def test_the_published_mixtures() -> None:
    mid, sft = load_recipe("mid_d12"), load_recipe("sft_d12")
    assert list(mid.tasks.mixture) == [
        *("smoltalk", "smoltalk-ja", "mmlu", "gsm8k", "identity", "simple-spelling", "spelling-bee")
    ]
    assert mid.tasks.mixture["identity"].epochs == 2
    assert mid.tasks.mixture["simple-spelling"].settings == {"size": 200000}
    assert mid.tasks.mixture["mmlu"] == SourceConfig(task="mmlu", split="auxiliary_train")
    assert (mid.tasks.loss_on, mid.data.packing, mid.optimizer.clip) == ("all", "concat", 0.0)
    assert (mid.optimizer.lr_fraction, mid.optimizer.warmdown_fraction, mid.optimizer.matrix_lr) == (1.0, 0.2, 0.025)
    assert sft.tasks.mixture["smoltalk"].rows == 10000
    assert sft.tasks.mixture["smoltalk-ja"].rows == 5000
    assert (sft.tasks.loss_on, sft.data.packing, sft.data.document_mask) == ("assistant", "best_fit", True)
    assert (sft.optimizer.lr_fraction, sft.optimizer.warmdown_fraction, sft.optimizer.matrix_lr) == (0.02, 1.0, 0.02)
    english = {name: load_recipe(name).tasks.mixture for name in ("mid_d20", "sft_d20")}
    assert [list(mixture) for mixture in english.values()] == [
        [name for name in recipe.tasks.mixture if name != "smoltalk-ja"] for recipe in (mid, sft)
    ]


@pytest.mark.parametrize("name", ["mid_d12", "mid_d20", "mid_demo", "sft_d12", "sft_d20", "sft_demo"])
def test_a_pass_over_the_mixture_is_the_horizon_and_a_saved_mixture_the_same(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(name, SAVED)
    assert (recipe.train.steps, recipe.train.epochs) == (0, 1)
    assert load_recipe(name, ["--train.steps", "7"]).train.steps == 7
    assert recipe.tasks.mixture["mine"].task == str(Path("~/a b/私の.jsonl").expanduser())
    save_recipe(recipe, tmp_path / "recipe.toml")
    again = load_recipe(tmp_path / "recipe.toml")
    assert again == recipe
    assert list(again.tasks.mixture) == list(recipe.tasks.mixture)


def test_the_command_line_sets_one_number_or_another_mixture() -> None:
    words = ["--tasks.mixture.smoltalk.rows", "5", "--tasks.mixture.spelling-bee.settings.size=7"]
    mixture = load_recipe("sft_d20", [*words, "--tasks.mixture.identity.epochs", "0"]).tasks.mixture
    assert (mixture["smoltalk"].rows, mixture["spelling-bee"].settings, mixture["identity"].epochs) == (
        5,
        {"size": 7},
        0,
    )
    assert load_recipe("sft_d20", ["--tasks.mixture", "gsm8k | my/own.jsonl"]).tasks.mixture == {
        "gsm8k": SourceConfig(task="gsm8k"),
        "my/own.jsonl": SourceConfig(task="my/own.jsonl"),
    }
    assert load_recipe("sft_d20", ["--tasks.val="]).tasks.val == {}


REFUSED = [
    ("--tasks.mixture.smoltalk.row=5", "unknown setting tasks.mixture.smoltalk.row: did you mean .*smoltalk.rows"),
    ("--tasks.mixture.smoltalk.rows=-5", "tasks.mixture.smoltalk.rows is -5: it must be at least 0"),
    ("--tasks.mixture.smoltalk.rows=many", "tasks.mixture.smoltalk.rows is 'many': it must be a whole number"),
    ("--tasks.mixture.smoltalk=5", "'smoltalk' must be a table|tasks.mixture must be a table of tables"),
    ("--tasks.mixture", "tasks.mixture must be a table of tables"),
    ("--tasks.loss_on=user", "it must be assistant or all"),
]


@pytest.mark.parametrize(("word", "message"), REFUSED)
def test_a_mixture_that_cannot_be_is_refused_in_a_sentence(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe("sft_d20", [word])


def test_a_mixture_of_nothing_and_epochs_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"every source of tasks.mixture has epochs = 0"):
        load_recipe("sft_demo", ["--tasks.mixture.english.epochs=0", "--tasks.mixture.japanese.epochs=0"])
    with pytest.raises(InputError, match=r"train.epochs counts passes over conversations and tasks.mixture is empty"):
        load_recipe("d20", ["--train.epochs", "1"])
