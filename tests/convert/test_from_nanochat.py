"""Upstream's checkpoints become ours: the same logits, the same ids; what is another model is refused by its name."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_iberis.checkpoint import verify
from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
from megatron_iberis.config import ModelConfig
from megatron_iberis.convert.nanochat import convert_from_nanochat, read_nanochat
from megatron_iberis.errors import InputError
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import Tokenizer, import_nanochat
from tests.support.golden_cases import CASES, model_config, tensors
from tests.support.nanochat import VOCABULARY, metadata, random_weights, write_checkpoint, write_tokenizer

IBERIS = str(Path(sys.executable).parent / "iberis")
SMALL = ModelConfig(depth=4, width=32, heads=4, kv_heads=2, vocab_size=VOCABULARY, sequence_length=16).resolved()


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_nanochat(folder, **settings)
    said = str(caught.value)
    assert "\n" not in said
    assert said[-1] in ".)"
    return said


def with_vocabulary(weights: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """The same model with so many ids: the new ones change nothing for the others."""
    found = dict(weights)
    for name in ("transformer.wte.weight", "lm_head.weight"):
        found[name] = torch.cat((found[name], torch.ones(size - found[name].shape[0], found[name].shape[1])))
    return found


@pytest.mark.parametrize("case", CASES)
def test_logits_of_a_converted_model_equal_golden(tmp_path: Path, case: str) -> None:
    config = replace(model_config(case), vocab_size=VOCABULARY)
    weights = with_vocabulary(tensors(case, "weights"), VOCABULARY)
    folder = write_checkpoint(tmp_path, weights, metadata(config))
    convert_from_nanochat(folder, tmp_path / "ours")
    found = CheckpointWeights(whole_checkpoint(tmp_path / "ours"))
    assert found.recipe.model == replace(config, mlp_ratio=config.mlp_hidden / config.width)
    assert (found.step, found.weights_only) == (20, True)
    assert Tokenizer.load(found.tokenizer).fingerprint == import_nanochat(tmp_path / "tokenizer").fingerprint
    model = ReferenceIberis(found.recipe.model)
    model.load_state_dict(dict(found.weights))
    golden = tensors(case, "batch")
    with torch.no_grad():
        logits = model(golden["input_ids"])[..., :256]
    assert (logits - golden["logits"]).abs().max() <= 1e-4


def test_a_gpus_checkpoint_keeps_every_bit(tmp_path: Path) -> None:
    """Names with the prefix that torch.compile puts before them, the embedding in bf16, parameters for tensors."""
    weights = random_weights(SMALL)
    stored = {f"_orig_mod.{name}": torch.nn.Parameter(tensor) for name, tensor in weights.items()}
    stored["_orig_mod.transformer.wte.weight"] = torch.nn.Parameter(weights["transformer.wte.weight"].bfloat16())
    folder = write_checkpoint(tmp_path, stored, metadata(SMALL))
    convert_from_nanochat(folder, tmp_path / "ours")
    found = CheckpointWeights(tmp_path / "ours").weights
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"].bfloat16().float()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert {found[name].dtype for name in found} == {torch.float32}


def test_the_last_step_is_taken_or_the_one_that_is_named(tmp_path: Path) -> None:
    for step in (5, 1000, 200):
        folder = write_checkpoint(tmp_path, random_weights(SMALL, step), metadata(SMALL), step)
    assert read_nanochat(folder).step == 1000
    found = read_nanochat(folder, step=200)
    assert torch.equal(found.weights["lm_head.weight"], random_weights(SMALL, 200)["lm_head.weight"])
    assert read_nanochat(folder / "model_000005.pt").step == 5
    assert "no model of step 7: there is one of 5, 200, 1000" in refusal(folder, step=7)


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"depth": 6, "kernel": 4, "slc_rate": 2}, {}),
        ({"kernel": 2, "slc_rate": 4}, {"n_kernel": 2, "slc_rate": 4}),
        ({"slc_rate": 1}, {}),  # nanochat's own, until 11 January 2026
        ({"slc_rate": 1}, {"window_pattern": "L"}),
        ({"inner_norm": True, "mlp_hidden": 176}, {}),
        ({"depth": 2, "slc_rate": 3}, {"slc_rate": 1}),  # by which upstream leaves attention in the last layer alone
    ],
)
def test_sizes_that_the_metadata_leave_out_are_those_of_the_weights(
    tmp_path: Path, change: dict[str, Any], more: dict[str, Any]
) -> None:
    config = replace(SMALL, **change)
    folder = write_checkpoint(tmp_path, random_weights(config), metadata(config, **more))
    found = read_nanochat(folder).config
    assert found.attention_layers == config.attention_layers
    unsaid = {"mlp_ratio": config.mlp_ratio, "slc_rate": config.slc_rate}
    assert replace(found, **unsaid) == config
    if "slc_rate" not in more:
        assert found.slc_rate == config.slc_rate


@pytest.mark.parametrize(("width", "heads", "hidden", "jp"), [(256, 2, 1024, False), (192, 3, 1056, True)])
def test_published_shapes_tell_the_variant(tmp_path: Path, width: int, heads: int, hidden: int, jp: bool) -> None:
    """By the published rules: heads of 128 and an MLP of 4 E, or heads of 64 and one of 5.5 E."""
    config = ModelConfig(
        depth=3, width=width, heads=heads, mlp_hidden=hidden, inner_norm=jp, vocab_size=VOCABULARY, sequence_length=8
    ).resolved()
    folder = write_checkpoint(tmp_path, random_weights(config), metadata(config))
    found = read_nanochat(folder)
    assert found.config == replace(config, mlp_ratio=hidden / width)
    published = found.recipe.optimizer
    assert (published.matrix_lr, published.embedding_lr) == ((0.025, 0.25) if jp else (0.02, 0.2))


def test_shapes_between_the_variants_ask_for_the_variant(tmp_path: Path) -> None:
    config = ModelConfig(
        depth=3, width=256, heads=4, mlp_hidden=1024, vocab_size=VOCABULARY, sequence_length=8
    ).resolved()
    folder = write_checkpoint(tmp_path, random_weights(config), metadata(config))
    assert "say by which code it was trained (--variant en, or --variant jp" in refusal(folder)
    assert read_nanochat(folder, variant="jp").config.inner_norm
    assert not read_nanochat(folder, variant="en").config.inner_norm


@pytest.mark.parametrize(
    ("given", "more", "stage"),
    [
        ({"depth": 4, "run": "dummy"}, {}, "base"),
        ({"run": "dummy", "num_iterations": -1}, {}, "chat"),  # mid-training, on conversations
        (None, {"n_kernel": 3, "slc_rate": 3}, "chat"),
    ],
)
def test_a_model_that_learned_conversations_is_told_from_a_base_model(
    tmp_path: Path, given: dict[str, Any] | None, more: dict[str, Any], stage: str
) -> None:
    folder = write_checkpoint(tmp_path, random_weights(SMALL), metadata(SMALL, **more), given=given)
    convert_from_nanochat(folder, tmp_path / "ours")
    assert CheckpointWeights(tmp_path / "ours").recipe.run.stage == stage


def test_ids_that_fill_up_nanochats_vocabulary_are_left_out(tmp_path: Path) -> None:
    config = replace(SMALL, slc_rate=1)
    weights = random_weights(config)
    folder = write_checkpoint(tmp_path, with_vocabulary(weights, 320), metadata(config))
    found = read_nanochat(folder).weights
    assert all(torch.equal(found[name], weights[name]) for name in weights)


NEWER: list[tuple[dict[str, torch.Tensor], dict[str, Any], str]] = [
    ({"smear_gate.weight": torch.ones(1, 24), "smear_lambda": torch.ones(1)}, {}, "smear"),
    ({"backout_lambda": torch.ones(1)}, {}, "backout"),
    ({"value_embeds.1.weight": torch.ones(VOCABULARY, 16)}, {}, "value embeddings"),
    ({"transformer.h.1.attn.ve_gate.weight": torch.ones(2, 12)}, {}, "value embeddings"),
    ({"resid_lambdas": torch.ones(4)}, {}, "resid_lambdas"),
    ({"_orig_mod.x0_lambdas": torch.zeros(4)}, {}, "x0_lambdas"),
    ({}, {"window_pattern": "SSSL"}, "sliding windows (window_pattern SSSL)"),
]


@pytest.mark.parametrize(
    ("weights", "sizes", "feature"), NEWER, ids=lambda value: value if type(value) is str else ""
)
def test_a_newer_nanochat_is_refused_by_what_it_has(
    tmp_path: Path, weights: dict[str, torch.Tensor], sizes: dict[str, Any], feature: str
) -> None:
    config = replace(SMALL, slc_rate=1)
    folder = write_checkpoint(tmp_path, {**random_weights(config), **weights}, metadata(config, **sizes))
    said = refusal(folder)
    assert "is of a newer nanochat, with what Saint Iberis has not: " in said
    assert feature in said


def test_todays_nanochat_is_refused_with_all_that_it_has(tmp_path: Path) -> None:
    config = replace(SMALL, slc_rate=1)
    weights = random_weights(config)
    for added, _, _ in NEWER:
        weights.update(added)
    said = refusal(write_checkpoint(tmp_path, weights, metadata(config, window_pattern="SSSL")))
    assert all(feature in said for _, _, feature in NEWER)


def other_models() -> Iterator[tuple[dict[str, torch.Tensor], dict[str, Any], str]]:
    whole, sizes = random_weights(SMALL), metadata(SMALL)
    lacking = {name: tensor for name, tensor in whole.items() if "layer" not in name and "B_proj" not in name}
    query = "transformer.h.1.attn.c_q.weight"
    yield lacking, sizes, "lacks the weight transformer.h.0.attn.B_proj.weight"
    yield {**whole, "transformer.wpe.weight": torch.ones(2)}, sizes, "transformer.wpe.weight, which Saint Iberis has"
    yield {**whole, query: torch.ones(8, 32)}, sizes, f"{query} of shape [8, 32] where [32, 32] is meant"
    yield {**whole, query: torch.full((32, 32), torch.nan)}, sizes, f"numbers in {query} that are not finite"
    yield whole, {**sizes, "n_layer": 5}, "no model.slc_rate gives that"
    yield whole, {**sizes, "n_layer": 2**30}, "lacks some of a model of 1,073,741,824 layers"
    yield (
        whole,
        {**sizes, "n_embd": 2**30},
        "1,073,741,824 and 265 ids, and its embedding is of shape [265, 32]",
    )
    yield whole, {**sizes, "n_head": 3}, "cannot be split into 3 heads"
    yield whole, {**sizes, "n_head": "4"}, "gives n_head as '4'"
    yield whole, {**sizes, "n_experts": 8}, "gives a model n_experts, which Saint Iberis has not"
    yield whole, metadata(SMALL, n_head=None), "does not say n_head"
    yield {"a": torch.ones(1)}, sizes, "lacks some of a model of 4 layers"


@pytest.mark.parametrize("number", range(12))
def test_another_model_is_refused_in_one_sentence(tmp_path: Path, number: int) -> None:
    weights, sizes, said = list(other_models())[number]
    assert said in refusal(write_checkpoint(tmp_path, weights, sizes))


def test_folders_that_are_none_of_nanochats_are_refused(tmp_path: Path) -> None:
    assert "is no folder of nanochat's" in refusal(tmp_path / "nothing")
    assert "holds no model_*.pt: name the folder that holds one" in refusal(tmp_path)
    folder = write_checkpoint(tmp_path, random_weights(SMALL), metadata(SMALL))
    assert "name one of the folders in it (d5)" in refusal(folder.parent)
    meta = folder / "meta_000020.json"
    for content in ("", "[]", '{"model_config": 3}', "[" * 100_000, '{"step": 1}'):
        meta.write_text(content)
        assert "meta_000020.json is not the metadata that nanochat wrote" in refusal(folder)
    meta.unlink()
    assert "meta_000020.json is missing" in refusal(folder)


def test_the_tokenizer_lies_beside_or_is_named_and_fits_the_model(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, random_weights(SMALL), metadata(SMALL))
    wanted = read_nanochat(folder).tokenizer.fingerprint
    elsewhere = write_tokenizer(tmp_path / "elsewhere" / "deep")
    (tmp_path / "tokenizer" / "tokenizer.pkl").unlink()
    assert "there is no tokenizer.pkl beside" in refusal(folder)
    for given in (elsewhere, elsewhere.parent):
        assert read_nanochat(folder, tokenizer=given).tokenizer.fingerprint == wanted
    write_tokenizer(folder)
    assert read_nanochat(folder).tokenizer.fingerprint == wanted
    said = refusal(folder, tokenizer=write_tokenizer(tmp_path / "other", merges=3))
    assert "the tokenizer has 268 ids and the model" in said


def test_layers_that_upstream_left_silent_are_told(tmp_path: Path) -> None:
    weights = random_weights(SMALL)
    weights["transformer.h.0.attn.conv1d.weight"].zero_()
    weights["transformer.h.2.attn.c_proj.weight"].zero_()
    assert read_nanochat(write_checkpoint(tmp_path, weights, metadata(SMALL))).silent_layers() == [0, 2]
    assert read_nanochat(write_checkpoint(tmp_path, random_weights(SMALL), metadata(SMALL))).silent_layers() == []


# The output


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_output_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, random_weights(SMALL), metadata(SMALL))
    output = tmp_path / "some" / "where" / "ours"
    with files_of_at_most(50_000), pytest.raises(InputError, match=rf"cannot write {output} .*File too large"):
        convert_from_nanochat(folder, output)
    assert not (tmp_path / "some").exists()
    convert_from_nanochat(folder, output)
    assert verify.damage(output) is None
    assert len({path.stat().st_mode for path in output.iterdir() if path.is_file()}) == 1
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="is there already: name a folder that is not"):
        convert_from_nanochat(folder, output)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert [path.name for path in output.parent.iterdir()] == ["ours"]


def test_the_command_converts_and_the_model_continues_a_prompt(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, random_weights(SMALL), metadata(SMALL))
    command = [IBERIS, "convert", "from-nanochat", "--input", str(folder), "--output", str(tmp_path / "ours")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path / "ours") in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"error: {tmp_path / 'ours'} is there already: name a folder that is not.\n"
    words = ["generate", "--checkpoint", str(tmp_path / "ours"), "--prompt", "月は", "--tokens", "4"]
    said = subprocess.run([IBERIS, *words], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("月は")
