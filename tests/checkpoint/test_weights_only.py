"""A folder of weights alone is a checkpoint to whoever reads weights, and none to whoever would resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from megatron_iberis.checkpoint import verify, weights_only
from megatron_iberis.checkpoint.load import Checkpoint
from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
from megatron_iberis.checkpoint.weights_only import save_weights
from megatron_iberis.config import ModelConfig, Recipe
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer
from tests.conftest import Corpus
from tests.support.nanochat import random_weights

MODEL = ModelConfig(depth=3, width=32, heads=4, vocab_size=600, sequence_length=16).resolved()
RECIPE = Recipe(model=MODEL).resolved()


@pytest.fixture
def folder(tmp_path: Path, corpus: Corpus) -> Path:
    path = tmp_path / "weights"
    save_weights(path, RECIPE, Tokenizer.load(corpus.tokenizer), random_weights(MODEL), 7, "a test")
    return path


def test_what_is_read_is_what_was_written(folder: Path, corpus: Corpus) -> None:
    assert verify.damage(folder) is None
    found = CheckpointWeights(whole_checkpoint(folder))
    wanted = random_weights(MODEL)
    assert found.weights.keys() == wanted.keys()
    assert all(torch.equal(found.weights[name], wanted[name]) for name in wanted)
    assert found.weights.shapes() == {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    assert (found.step, found.recipe, found.weights_only) == (7, RECIPE, True)
    assert Tokenizer.load(found.tokenizer).fingerprint == Tokenizer.load(corpus.tokenizer).fingerprint
    found.close()


def test_no_file_is_much_larger_than_a_shard(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_only, "SHARD_BYTES", 20_000)
    weights = random_weights(MODEL)
    weights["lm_head.weight"] = weights["transformer.wte.weight"]  # one memory under two names
    save_weights(tmp_path / "w", RECIPE, Tokenizer.load(corpus.tokenizer), weights, 7, "a test")
    files = sorted((tmp_path / "w").glob("model-*.safetensors"))
    assert len(files) > 4
    largest = max(tensor.nbytes for tensor in weights.values())
    assert all(path.stat().st_size < 20_000 + largest + 4_000 for path in files)
    found = CheckpointWeights(tmp_path / "w").weights
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_resuming_from_it_names_the_setting_that_is_meant(folder: Path) -> None:
    with pytest.raises(InputError, match=rf"nothing of a training .* with --run.start_from {folder} and another"):
        Checkpoint(folder)


def test_a_state_without_the_optimizers_count_is_damaged_for_resuming(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    del state["weights_only"]
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        Checkpoint(folder)


def test_nothing_is_left_of_a_folder_that_could_not_be_finished(tmp_path: Path, corpus: Corpus) -> None:
    weights = random_weights(MODEL)
    weights["lm_head.weight"] = "no tensor"  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        save_weights(tmp_path / "a" / "w", RECIPE, Tokenizer.load(corpus.tokenizer), weights, 7, "a test")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, corpus: Corpus, kind: str) -> None:
    path = tmp_path / "w"
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"{path} is there already: name a folder that is not"):
        save_weights(path, RECIPE, Tokenizer.load(corpus.tokenizer), random_weights(MODEL), 7, "a test")
    assert [each.name for each in tmp_path.iterdir()] == ["w"]
