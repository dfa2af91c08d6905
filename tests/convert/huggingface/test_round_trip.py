"""What to-hf wrote comes back by from-hf as it was: weights to the bit, recipe, tokenizer, steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from megatron_iberis.checkpoint.weights import CheckpointWeights
from megatron_iberis.convert.exported import convert_from_hf
from megatron_iberis.convert.huggingface.export import export, without_places
from megatron_iberis.tokenizer import Tokenizer
from tests.convert.huggingface.conftest import SHARD_BYTES


def check(back: Path, checkpoint: Path, dtype: torch.dtype) -> None:
    found, wanted = CheckpointWeights(back), CheckpointWeights(checkpoint)
    assert found.weights.keys() == wanted.weights.keys()
    for name, tensor in wanted.weights.items():
        assert torch.equal(found.weights[name], tensor.to(dtype).float()), name
    assert (found.step, found.weights_only) == (wanted.step, True)
    assert found.recipe == without_places(wanted.recipe)
    assert Tokenizer.load(found.tokenizer).fingerprint == Tokenizer.load(wanted.tokenizer).fingerprint


def test_an_export_comes_back_as_it_was(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert len(list(exported.glob("model-*.safetensors"))) > 1
    convert_from_hf(exported, tmp_path / "back")
    check(tmp_path / "back", checkpoint, torch.float32)


@pytest.mark.full  # another export, which takes its time
def test_an_export_in_bf16_comes_back_as_its_bf16_values(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "exported", "bf16", SHARD_BYTES)
    convert_from_hf(tmp_path / "exported", tmp_path / "back")
    check(tmp_path / "back", checkpoint, torch.bfloat16)


def test_what_transformers_saved_again_comes_back_with_the_tokenizer_named(
    exported: Path, checkpoint: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(exported, trust_remote_code=True)
    with torch.no_grad():
        model.get_input_embeddings().weight[3] += 1  # it was trained further, say
    model.save_pretrained(tmp_path / "again")
    convert_from_hf(tmp_path / "again", tmp_path / "back", exported / "tokenizer")
    found, wanted = CheckpointWeights(tmp_path / "back").weights, CheckpointWeights(checkpoint).weights
    name = "transformer.wte.weight"
    assert torch.equal(found[name][3], wanted[name][3] + 1)
    assert all(torch.equal(found[other], wanted[other]) for other in wanted if other != name)
