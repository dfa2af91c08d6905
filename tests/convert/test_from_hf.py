"""An export comes back bit for bit, without transformers; what is no export of Saint Iberis is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_iberis.checkpoint import verify
from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
from megatron_iberis.config import ModelConfig, Recipe, save_recipe
from megatron_iberis.convert.exported import convert_from_hf, read_export
from megatron_iberis.convert.names import sizes_for_hf
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer
from tests.conftest import Corpus
from tests.support.nanochat import random_weights

MODEL = ModelConfig(
    depth=4, width=32, heads=4, kv_heads=2, mlp_hidden=72, inner_norm=True, vocab_size=610, sequence_length=16
).resolved()


@pytest.fixture
def export(tmp_path: Path, corpus: Corpus) -> Path:
    """What of an export matters on the way back: sizes, weights in two files, our own tokenizer."""
    folder = tmp_path / "export"
    folder.mkdir()
    write_config(folder)
    write_weights(folder, random_weights(MODEL))
    shutil.copytree(corpus.tokenizer, folder / "tokenizer")
    return folder


def write_config(folder: Path, **changes: Any) -> None:
    values = {**sizes_for_hf(MODEL), "architectures": ["IberisForCausalLM"], "training_steps": 12, **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def write_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    names = list(weights)
    files = {f"model-{n + 1:05d}-of-00002.safetensors": names[n::2] for n in range(2)}
    for file, own in files.items():
        save_file({name: weights[name] for name in own}, folder / file)
    where = {name: file for file, own in files.items() for name in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("files", [1, 2])
def test_weights_come_back_bit_for_bit(tmp_path: Path, export: Path, dtype: torch.dtype, files: int) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in random_weights(MODEL).items()}
    write_weights(export, weights)
    if files == 1:
        (export / "model.safetensors.index.json").unlink()
        save_file(weights, export / "model.safetensors")
    convert_from_hf(export, tmp_path / "ours")
    found = CheckpointWeights(whole_checkpoint(tmp_path / "ours"))
    assert verify.damage(tmp_path / "ours") is None
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(found.weights[name], weights[name].float()) for name in weights)
    assert (found.step, found.weights_only) == (12, True)
    assert replace(found.recipe.model, mlp_ratio=MODEL.mlp_ratio) == MODEL
    own = Tokenizer.load(found.tokenizer)
    assert own.fingerprint == Tokenizer.load(export / "tokenizer").fingerprint


def test_the_recipe_that_came_along_is_kept_where_it_is_of_this_model(tmp_path: Path, export: Path) -> None:
    recipe = replace(Recipe(model=MODEL), train=replace(Recipe().train, steps=77)).resolved()
    save_recipe(recipe, export / "recipe.toml")
    assert read_export(export).recipe.train.steps == 77
    write_config(export, rope_theta=5000.0)
    changed = read_export(export).recipe
    assert changed.model.rope_base == 5000.0
    assert changed.train.steps != 77


def test_one_that_transformers_saved_again_needs_the_tokenizer_named(
    tmp_path: Path, export: Path, corpus: Corpus
) -> None:
    shutil.rmtree(export / "tokenizer")
    write_config(export, dtype="float32", transformers_version="5.20.0", training_steps=None)
    with pytest.raises(InputError, match=r"holds no tokenizer of ours: name its folder \(--tokenizer PATH\)"):
        convert_from_hf(export, tmp_path / "ours")
    convert_from_hf(export, tmp_path / "ours", corpus.tokenizer)
    assert CheckpointWeights(tmp_path / "ours").step == 0


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda export: (export / name).write_text(content) and None


def drop_weight(export: Path) -> None:
    file = export / "model-00001-of-00002.safetensors"
    weights = load_file(file)
    del weights["transformer.wte.weight"]
    save_file(weights, file)


def add_weight(export: Path) -> None:
    file = export / "model-00001-of-00002.safetensors"
    save_file({**load_file(file), "transformer.wpe.weight": torch.ones(2)}, file)


INDEX = "model.safetensors.index.json"
BAD: list[tuple[Callable[[Path], Any], str]] = [
    (lambda export: (export / "config.json").unlink(), "is no export to Hugging Face"),
    (write("config.json", "{"), "config.json is damaged"),
    (write("config.json", "[]"), "config.json is damaged"),
    (lambda export: write_config(export, model_type="llama"), "of a model of type 'llama'"),
    (lambda export: write_config(export, hidden_size="32"), "gives hidden_size as '32'"),
    (lambda export: write_config(export, num_hidden_layers=None), "does not say num_hidden_layers"),
    (lambda export: write_config(export, hidden_size=64, head_dim=16), "of shape"),
    (lambda export: (export / "model-00002-of-00002.safetensors").unlink(), "00002-of-00002.safetensors is missing"),
    (write("model-00002-of-00002.safetensors", "cut"), "00002-of-00002.safetensors is damaged"),
    (write(INDEX, "{}"), f"{INDEX} is damaged"),
    (write(INDEX, '{"weight_map": {"a": "../../secret"}}'), f"{INDEX} is damaged"),
    (write(INDEX, '{"weight_map": {"a": 3}}'), f"{INDEX} is damaged"),
    (lambda export: (export / INDEX).unlink(), "model.safetensors is missing"),
    (drop_weight, "lacks the weight transformer.wte.weight"),
    (add_weight, "has a weight transformer.wpe.weight, which Saint Iberis has not"),
    (lambda export: write_config(export, vocab_size=100), "has 600 ids and the model in"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_no_whole_export_of_ours_is_refused(tmp_path: Path, export: Path, number: int) -> None:
    spoil, said = BAD[number]
    spoil(export)
    with pytest.raises(InputError) as caught:
        convert_from_hf(export, tmp_path / "ours")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()


def test_transformers_is_not_needed(tmp_path: Path, export: Path) -> None:
    code = (
        "import sys; sys.modules.update(transformers=None, tokenizers=None, megatron=None, deepspeed=None)\n"
        "from megatron_iberis.cli import main\n"
        f"sys.exit(main(['convert', 'from-hf', '--input', {str(export)!r}, '--output', {str(tmp_path / 'ours')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "trained for 12 steps" in done.stdout
    assert whole_checkpoint(tmp_path / "ours")
