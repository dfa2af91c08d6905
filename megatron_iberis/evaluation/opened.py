"""A checkpoint as evaluation sees it before the model is loaded: recipe, tokenizer, and what it is known by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron_iberis.checkpoint import files
from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
from megatron_iberis.errors import InputError
from megatron_iberis.storage.hashing import hash_file
from megatron_iberis.tokenizer import Tokenizer

_EVALUATION = "evaluation"


class OpenedCheckpoint:
    """A checkpoint folder, or a run's newest whole one. InputError where there is none, or it does not fit."""

    def __init__(self, path: str) -> None:
        self.folder = whole_checkpoint(Path(path))
        opened = CheckpointWeights(self.folder)
        self.recipe, self.step = opened.recipe, opened.step
        self.tokenizer = Tokenizer.load(opened.tokenizer)
        opened.close()
        if self.tokenizer.vocab_size > self.recipe.model.vocab_size:
            raise InputError(
                f"the tokenizer in {self.folder} has {self.tokenizer.vocab_size:,} tokens and the model "
                f"{self.recipe.model.vocab_size:,}: it is another model's, copy the checkpoint again."
            )

    def settings(self, kind: str, dtype: str | None, limit: int) -> dict[str, Any]:
        """What decides the replies; the manifest's hash stands for the weights."""
        return {
            "kind": kind,
            "step": self.step,
            "checkpoint": hash_file(self.folder / files.MANIFEST),
            "tokenizer": self.tokenizer.fingerprint,
            "dtype": dtype or "the device's",
            "limit": limit,
        }

    def default_output(self, kind: str) -> Path:
        """In the run's folder where there is one, beside the checkpoint else."""
        below = self.folder.parent
        run = below.parent if below.name == "checkpoints" else below
        return run / _EVALUATION / f"{kind}-{self.folder.name}"
