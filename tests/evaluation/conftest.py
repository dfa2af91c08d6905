"""One small model for all tests of the room: random weights, a bilingual tokenizer, and its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from megatron_iberis.checkpoint.weights_only import save_weights
from megatron_iberis.config import ModelConfig, load_recipe
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import Tokenizer
from tests.evaluation.support import write_bundle
from tests.support.decoding import random_weights
from tests.support.tokenizers import small_tokenizer

MODEL = ModelConfig(
    depth=5, width=32, heads=4, kv_heads=2, vocab_size=512, sequence_length=64, inner_norm=True, mlp_hidden=48
).resolved()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="session")
def weights() -> dict[str, torch.Tensor]:
    return random_weights(MODEL, 3)


@pytest.fixture(scope="session")
def decoder(weights: dict[str, torch.Tensor]) -> Decoder:
    return Decoder(MODEL, weights)


@pytest.fixture(scope="session")
def reference(weights: dict[str, torch.Tensor]) -> ReferenceIberis:
    model = ReferenceIberis(MODEL)
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture(scope="session")
def checkpoints(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, weights: dict[str, torch.Tensor]
) -> dict[str, Path]:
    """By stage: base, chat."""
    folders = {}
    for stage in ("base", "chat"):
        words = [f"--run.stage={stage}", *(f"--{name}=/x" for name in ("run.folder", "data.train", "data.tokenizer"))]
        recipe = load_recipe("demo", [*words, "--data.val=/x"])
        from dataclasses import replace

        folders[stage] = tmp_path_factory.mktemp("evaluated") / "step-00000007"
        save_weights(folders[stage], replace(recipe, model=MODEL), tokenizer, weights, 7, "a test")
    return folders


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle in eval_bundle/."""
    root = tmp_path_factory.mktemp("root")
    write_bundle(root / "eval_bundle")
    return root
