"""What a stage reads: opened, and found to fit together, before torch is imported or anything allocated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron_iberis.checkpoint import files
from megatron_iberis.config import Recipe
from megatron_iberis.data.mixture import RowLayout, open_mixture, open_validation
from megatron_iberis.data.rows import ConcatSource, Mixture
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.stages.start_from import Start, find_start
from megatron_iberis.tokenizer import Tokenizer


@dataclass(frozen=True)
class Inputs:
    """The tokenizer of a run, and its opened samples."""

    recipe: Recipe
    tokenizer: Tokenizer
    train: Mixture
    val: ConcatSource | None
    start: Start | None = None
    """The weights to begin with, where they are not a new model's."""

    @property
    def token_files(self) -> list[TokenFile]:
        """All that are read."""
        return [*(source.file for source in self.train.sources), *([self.val.file] if self.val else [])]


def open_inputs(recipe: Recipe) -> Inputs:
    """Opens tokenizer and token files, and finds the weights to start from.

    Raises InputError when one is missing, damaged, or made with another tokenizer, when a file is too short for
    a row, when the weights are another model's, and when the run folder holds a run that would be overwritten.
    """
    data, model = recipe.data, recipe.model
    for name, what in (("tokenizer", "the folder of a tokenizer"), ("train", "a token file to train on")):
        if not getattr(data, name):
            raise InputError(f"data.{name} is not set: give {what}, for example --data.{name} PATH.")
    if recipe.tasks.mixture:
        raise InputError(
            "tasks.mixture is what examples/midtrain.sh and sft.sh train on, not pretraining: leave it out, or take "
            "one of these."
        )
    tokenizer = open_tokenizer(recipe)
    start = find_start(recipe, tokenizer)
    layout = RowLayout(model.sequence_length, model.vocab_size, recipe.train.seed, data.packing, data.document_mask)
    samples = recipe.train.steps * (recipe.train.batch_tokens // model.sequence_length)
    train = open_mixture(data.train, tokenizer, layout, samples)
    val = open_validation(data.val, tokenizer, layout) if data.val else None
    refuse_to_overwrite(recipe)
    return Inputs(recipe, tokenizer, train, val, start)


def open_tokenizer(recipe: Recipe) -> Tokenizer:
    """The recipe's tokenizer; InputError when it is missing, damaged, or has more tokens than the model knows."""
    folder, size = recipe.data.tokenizer, recipe.model.vocab_size
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > size:
        raise InputError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size:,} tokens and model.vocab_size is {size:,}: raise "
            "model.vocab_size, or train a smaller tokenizer."
        )
    return tokenizer


def refuse_to_overwrite(recipe: Recipe) -> None:
    """InputError when the run's folder is a checkpoint, or holds a run that is not to be resumed."""
    folder = Path(recipe.run.folder)
    if (folder / files.STATE).is_file():
        raise InputError(
            f"{folder} is a checkpoint, not the folder of a run: start a new run from its weights, with "
            f"--run.start_from {folder} and another --run.folder."
        )
    root = folder / "checkpoints"
    if not recipe.run.resume and root.exists() and any(root.iterdir()):
        raise InputError(
            f"{folder} already holds a run: resume it (--run.resume), or give another folder (--run.folder)."
        )
