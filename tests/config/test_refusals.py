"""Whatever is wrong with a recipe is said in one sentence that names the setting and the way out."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from megatron_iberis.config import load_recipe
from megatron_iberis.errors import InputError


def refusal(*overrides: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - every test looks at the text
        load_recipe("d20", overrides)
    message = str(caught.value)
    assert isinstance(caught.value, InputError)
    assert "\n" not in message
    assert message[-1] in ".?"
    return message


UNKNOWN = [
    ("--modle.depth", "unknown section [modle]: did you mean model?"),
    ("--zzz.depth", "unknown section [zzz]: use one of model, parallel, optimizer, train"),
    ("--model.dept", "unknown setting model.dept: did you mean model.depth?"),
    ("--parallel.zero_stag", "unknown setting parallel.zero_stag: did you mean parallel.zero_stage?"),
    ("--parallel.qqq", "unknown setting parallel.qqq: use one of parallel.tp, parallel.sequence_parallel"),
    ("--model.depth.x", "'depth' is a value, not a section"),
]


@pytest.mark.parametrize(("word", "message"), UNKNOWN)
def test_an_unknown_name_is_answered_with_the_known_ones(word: str, message: str) -> None:
    assert message in refusal(word, "3")


@pytest.mark.parametrize(
    "words", [["steps", "3"], ["--steps", "3"], ["-train.steps", "3"], ["--train.steps", "3", "4"]]
)
def test_a_word_that_is_no_setting_is_answered_with_the_form(words: list[str]) -> None:
    assert "write overrides as --section.field value, for example --train.steps 100" in refusal(*words)


TYPES = [
    ("train.steps", "ten", "a whole number"),
    ("train.steps", "1.5", "a whole number"),
    ("train.steps", "nan", "a whole number"),
    ("train.steps", "true", "a whole number"),
    ("train.target_flops", "much", "a finite number"),
    ("train.target_flops", "inf", "a finite number"),
    ("model.softcap", "nan", "a finite number"),
    ("optimizer.matrix_lr", "-inf", "a finite number"),
    ("run.resume", "maybe", "true or false"),
    ("run.resume", "1", "true or false"),
    ("train.dtype", "fp16", "bf16 or fp32"),
    ("parallel.zero_stage", "4", "0 or 1 or 2 or 3"),
    ("optimizer.newton_schulz_dtype", "fp8", "auto or bf16 or fp32"),
]


@pytest.mark.parametrize(("key", "text", "wanted"), TYPES)
def test_a_wrong_type_is_answered_with_the_right_one(key: str, text: str, wanted: str) -> None:
    message = refusal(f"--{key}", text)
    assert message.startswith(f"{key} is ")
    assert text in message
    assert f"it must be {wanted}" in message


@pytest.mark.parametrize(
    "key", ["train.steps", "optimizer.clip", "data.train", "train.dtype", "evaluation.sample_prompts"]
)
def test_a_forgotten_value_is_missed(key: str) -> None:
    assert refusal(f"--{key}", "--run.folder", "x") == f"{key} has no value: write --{key} VALUE."


@pytest.mark.parametrize(
    ("key", "wanted"),
    [("train.steps", "a whole number"), ("train.dtype", "bf16 or fp32"), ("run.resume", "true or false")],
)
def test_an_empty_value_is_shown_as_one(key: str, wanted: str) -> None:
    assert refusal(f"--{key}=") == f"{key} is '': it must be {wanted}."


@pytest.mark.parametrize("text", ["1" + "0" * 5000, "-1e300", "9223372036854775808"])
def test_a_number_that_no_64_bits_hold_is_refused(text: str) -> None:
    message = refusal("--train.batch_tokens", text)
    assert message.startswith("train.batch_tokens is ")
    assert len(message) < 200


@pytest.mark.parametrize("words", [["--run.folder", "a\udcff"], ["--run.folder=\udcff"], ["--run.\udcff", "a"]])
def test_a_word_that_is_not_utf8_is_refused(words: list[str]) -> None:
    message = refusal(*words)
    assert "is not UTF-8" in message
    assert message.isascii()


TOML = [
    ("[model]\ndepth = '4'", "model.depth is '4': it must be a whole number"),
    ("[model]\ndepth = true", "model.depth is 'True': it must be a whole number"),
    ("[model]\ndepth = 4.0", "model.depth is '4.0': it must be a whole number"),
    ("[model]\nsoftcap = nan", "model.softcap is 'nan': it must be a finite number"),
    ("[model]\ninner_norm = 1", "model.inner_norm is '1': it must be true or false"),
    ("[parallel]\nzero_stage = true", "parallel.zero_stage is 'True': it must be 0 or 1 or 2 or 3"),
    ("[evaluation]\nsample_prompts = [1, 2]", "evaluation.sample_prompts must be a list of texts"),
    ("[evaluation]\nsample_prompts = 'one'", "evaluation.sample_prompts must be a list of texts"),
    ("[data]\ntrain = 7", "data.train is '7': it must be a text"),
    ("[modell]\ndepth = 4", "unknown section [modell]: did you mean model?"),
    ("[model]\ndepht = 4", "unknown setting model.depht: did you mean model.depth?"),
    ("model = 4", "model is a section: write it as [model] with settings below it"),
    ("deepspeed = 4", "deepspeed is a section"),
    ("[model\ndepth = 4", "recipe.toml is not valid TOML"),
    ("[model.depth]\nx = 4", "model.depth is \"{'x': 4}\": it must be a whole number"),
    ("[model]\ndepth = 2020-01-01", "model.depth is '2020-01-01': it must be a whole number"),
    ("[[model]]\ndepth = 4", "model is a section: write it as [model] with settings below it"),
    ("[model]\ndepth = 1\ndepth = 2", "recipe.toml is not valid TOML"),
    ("", "recipe.toml holds no settings"),
    ("# nothing but a comment", "recipe.toml holds no settings"),
    ("x = " + "[" * 10_000, "recipe.toml is not valid TOML"),
]


@pytest.mark.parametrize(("text", "message"), TOML)
def test_a_recipe_file_is_checked_as_the_command_line_is(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_recipe(path)
    assert message in str(caught.value)


def test_a_recipe_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"recipe\.toml is not valid TOML"):
        load_recipe(path)


def test_a_recipe_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(InputError, match=r"folder\.toml is a folder: give the path of a \.toml file in it"):
        load_recipe(folder)
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\)"):
        load_recipe("x" * 300 + ".toml")

    def forbid(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", forbid)  # root may read all, so no file's mode would do it
    with pytest.raises(InputError, match=r"others\.toml cannot be read \(Permission denied\)"):
        load_recipe("others.toml")


def test_a_missing_recipe_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no recipe 'd21': use one of .*d12, d20.*or a \.toml file"):
        load_recipe("d21")
    with pytest.raises(ValueError, match=r"there is no recipe file .*absent\.toml"):
        load_recipe(tmp_path / "absent.toml")


RANGES = [
    *[(f"model.{name}", "-1", "at least 1") for name in ("depth", "width", "heads", "kv_heads", "mlp_hidden")],
    *[
        (f"model.{name}", "0", "at least 1")
        for name in ("depth", "slc_rate", "kernel", "sequence_length", "head_size")
    ],
    ("model.mlp_ratio", "0", "above 0"),
    ("model.mlp_ratio", "-4", "above 0"),
    ("model.vocab_size", "1", "at least 2"),
    ("model.vocab_size", "3000000000", "at most 2,147,483,648"),
    ("model.softcap", "0", "above 0 and at most 40"),
    ("model.softcap", "100", "above 0 and at most 40"),
    ("model.rope_base", "0", "above 0"),
    ("model.norm_eps", "0", "above 0"),
    *[(f"parallel.{name}", "0", "at least 1") for name in ("tp", "cp")],
    ("model.depth", "1000000", "at most 10,000"),
    ("model.mlp_ratio", "1e300", "at most 1,000"),
    ("train.tokens_per_parameter", "1e300", "at most 1,000,000"),
    *[(f"checkpoint.{name}", "-1", "at least 0") for name in ("keep_last", "keep_every")],
    ("parallel.timeout_minutes", "0", "above 0 and at most 100,000"),
    ("parallel.timeout_minutes", "1e30", "above 0 and at most 100,000"),
    *[(f"optimizer.{n}_lr", "-0.1", "at least 0") for n in ("matrix", "embedding", "unembedding")],
    *[(f"optimizer.{name}", "-1", "at least 0") for name in ("eps", "weight_decay", "clip")],
    *[
        (f"optimizer.{name}", "1", "at least 0 and below 1")
        for name in ("beta1", "beta2", "momentum_start", "momentum")
    ],
    *[
        (f"optimizer.{name}", "1.5", "at least 0 and at most 1")
        for name in ("warmdown_fraction", "final_lr_fraction")
    ],
    *[(f"optimizer.{name}", "-1", "at least 0") for name in ("warmup_steps", "momentum_warmup_steps")],
    ("optimizer.newton_schulz_steps", "0", "at least 1"),
    *[(f"train.{n}", "-1", "at least 0") for n in ("steps", "target_flops")],
    *[(f"train.{n}", "0", "at least 1") for n in ("batch_tokens", "log_every")],
    ("train.device_batch", "-1", "at least 0"),
    *[(f"evaluation.{n}", "-1", "at least 0") for n in ("every", "tokens", "sample_every")],
    ("evaluation.sample_tokens", "0", "at least 1"),
    ("train.seed", "-1", "at least 0 and below 9,223,372,036,854,775,808"),
    ("checkpoint.every", "-1", "at least 0"),
    ("run.folder", "", "name the run's folder"),
]


@pytest.mark.parametrize(("key", "text", "wanted"), RANGES)
def test_a_value_out_of_range_is_answered_with_the_range(key: str, text: str, wanted: str) -> None:
    message = refusal(f"--{key}={text}")
    assert message.startswith(key)
    assert wanted in message


IMPOSSIBLE = [
    ("--model.heads 7", "model.width 1280 cannot be split into 7 heads: set model.heads to a divisor of 1280"),
    ("--model.heads 1280", "gives 1 channels a head: rotary embedding needs an even number; change model.heads"),
    ("--model.kv_heads 3", "10 query heads cannot share 3 key-value heads: set model.kv_heads to 1, 2, 5 or 10"),
    ("--model.kv_heads 20", "10 query heads cannot share 20 key-value heads"),
    ("--parallel.tp 4", "10 heads cannot be split over tensor-parallel size 4: use 1, 2, 5 or 10"),
    (
        "--parallel.tp 2 --model.mlp_hidden 5121",
        "model.mlp_hidden 5121 cannot be split over tensor-parallel size",
    ),
    (
        "--parallel.sequence_parallel",
        "parallel.sequence_parallel needs tensor parallelism: set parallel.tp to 2 or more",
    ),
    (
        "--parallel.sequence_parallel --parallel.tp 2 --model.sequence_length 2047 --train.batch_tokens 65504",
        "model.sequence_length 2047 cannot be split over 2 ranks (context-parallel 1 x sequence-parallel 2)",
    ),
    ("--parallel.zero_stage 0", "set parallel.zero_stage to 1, 2 or 3, or train.dtype to fp32"),
    (
        "--train.batch_tokens 1000",
        "train.batch_tokens 1000 is no multiple of train.device_batch x model.sequence_length",
    ),
    (
        "--train.tokens_per_parameter 0",
        "no horizon: set train.steps, train.target_flops or train.tokens_per_parameter",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), IMPOSSIBLE)
def test_an_impossible_combination_is_answered_with_a_possible_one(overrides: str, message: str) -> None:
    assert message in refusal(*overrides.split())


def test_a_batch_that_the_ranks_cannot_share_is_answered_with_what_to_change() -> None:
    recipe = load_recipe("d20")
    with pytest.raises(ValueError, match=r"cannot be shared by 3 data-parallel ranks.*train\.device_batch.*196608"):
        recipe.train.accumulation(recipe.model, 3)
