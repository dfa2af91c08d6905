"""A small model with random weights, exported once, and loaded as one who has only transformers would load it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, dynamic_module_utils

from megatron_iberis.checkpoint.weights_only import save_weights
from megatron_iberis.config import ModelConfig, Recipe, load_recipe
from megatron_iberis.convert.huggingface.export import export
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import SPECIALS, TiktokenTokenizer, Tokenizer, train
from tests.support.comparison import randomise
from tests.tokenizer.conftest import VOCAB_SIZE, sample_texts
from tests.tokenizer.test_nanochat import merges

SHARD_BYTES = 60_000
# nanochat's own, with everything in it that engines of regular expressions disagree about.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
MODEL = ModelConfig(
    depth=5, width=32, heads=4, kv_heads=2, vocab_size=512, sequence_length=64, inner_norm=True, mlp_hidden=48
).resolved()


def recipe_of(model: ModelConfig, stage: str = "chat") -> Recipe:
    places = [f"--{name}=/home/me/{name}" for name in ("run.folder", "data.train", "data.val", "data.tokenizer")]
    recipe = load_recipe("demo", [f"--run.stage={stage}", *places])
    return replace(recipe, model=model)


@pytest.fixture(scope="session")
def tokenizer_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind: bpe, unigram, tiktoken."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for kind in ("bpe", "unigram"):
        train(sample_texts(), VOCAB_SIZE, folder / kind, kind=kind)
    ranks = merges()
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIALS)}
    TiktokenTokenizer(PATTERN, ranks, specials).save(folder / "tiktoken")
    return {kind: folder / kind for kind in ("bpe", "unigram", "tiktoken")}


@pytest.fixture(scope="session")
def reference() -> ReferenceIberis:
    model = ReferenceIberis(MODEL)
    randomise(model, 1)
    return model


@pytest.fixture(scope="session")
def checkpoint(
    reference: ReferenceIberis, tokenizer_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "step-00000007"
    tokenizer = Tokenizer.load(tokenizer_folders["bpe"])
    save_weights(folder, recipe_of(MODEL), tokenizer, reference.state_dict(), 7, "a test")
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that another test run has left (IBERIS_EXPORT), or a new one."""
    if "IBERIS_EXPORT" in os.environ:
        return Path(os.environ["IBERIS_EXPORT"])
    folder = tmp_path_factory.mktemp("exported") / "small iberis"
    export(checkpoint, folder, "fp32", SHARD_BYTES)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small is slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code of exports is copied to a folder of this session's, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture(scope="session")
def model(exported: Path) -> Any:
    return load(exported)


@pytest.fixture(scope="session")
def theirs(exported: Path) -> Any:
    return AutoTokenizer.from_pretrained(exported, trust_remote_code=True)


def load(folder: Path, **settings: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **settings).eval()


def logits_of(reference: ReferenceIberis, ids: list[int]) -> torch.Tensor:
    """[T, V], by the reference implementation."""
    with torch.no_grad():
        return reference(torch.tensor([ids]))[0]


def likeliest(reference: ReferenceIberis, prompt: list[int], count: int, ends: tuple[int, ...]) -> list[int]:
    """The greedy continuation, the whole run again for each token; up to one of `ends`, which is kept."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits_of(reference, ids)[-1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]
