"""Small pretraining runs for tests, on ranks that are there already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from megatron_iberis.config import load_recipe
from megatron_iberis.stages.inputs import open_inputs
from megatron_iberis.stages.pretrain import run
from tests.conftest import Corpus

SMALL = {
    "model.depth": "2",
    "model.width": "32",
    "model.heads": "4",
    "model.vocab_size": "600",
    "model.sequence_length": "32",
    "train.batch_tokens": "256",
    "train.device_batch": "2",
    "train.steps": "10",
    "evaluation.every": "5",
    "evaluation.tokens": "512",
    "evaluation.sample_every": "5",
    "evaluation.sample_tokens": "3",
    "checkpoint.every": "5",
}


def words(corpus: Corpus, folder: Path, **settings: str) -> list[str]:
    """Command-line overrides of the demo's recipe for a run of a few seconds; `section__field` sets more."""
    chosen = {
        **SMALL,
        "data.train": corpus.train,
        "data.val": corpus.val,
        "data.tokenizer": str(corpus.tokenizer),
        "run.folder": str(folder),
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    return [f"--{key}={value}" for key, value in chosen.items()]


def pretrain(overrides: list[str]) -> int:
    """Runs on a rank: the pretraining stage as the launcher would call it."""
    recipe = load_recipe("demo", overrides)
    return run(recipe, open_inputs(recipe))


def checkpoint_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, weights, optimizer state and random state."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update(load_file(path))
    return found


def stop_after(folder: Path, copy: Path, step: int) -> None:
    """Copies a run as it was when it had saved the checkpoint after `step` and was killed a step later."""
    shutil.copytree(folder, copy)
    for path in (copy / "checkpoints").glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    (copy / "checkpoints" / "latest").write_text(f"step-{step:08d}\n")


def log(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for line in lines if (entry := json.loads(line))["event"] == event]
