"""What a stage reads: opened, and found to fit together, before torch is imported or anything allocated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from megatron_iberis.config import Recipe
from megatron_iberis.data.order.best_fit import PackedRows, open_packing
from megatron_iberis.data.order.blending import Blend, read_mixture
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.order.megatron import MegatronOrder, open_megatron_order
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer

Cut = SampleOrder | PackedRows | MegatronOrder
"""Which tokens of a file each of its samples is made of: one for each value of `data.packing`."""


@dataclass(frozen=True)
class TrainingData:
    """Token files, how each is cut into samples, and how these are mixed."""

    files: tuple[TokenFile, ...]
    cuts: tuple[Cut, ...]
    blend: Blend

    def __str__(self) -> str:
        tokens, documents = (sum(getattr(f, name) for f in self.files) for name in ("num_tokens", "num_documents"))
        several = f" of {len(self.files)} files" if len(self.files) > 1 else ""
        said = f"{tokens:,} tokens in {documents:,} documents{several}"
        for file, cut in zip(self.files, self.cuts, strict=True):
            if isinstance(cut, PackedRows):
                said += (
                    f"; {file.prefix} packed into {cut.num_rows:,} rows, {cut.cropped_share:.1%} of its tokens "
                    f"cropped, {cut.padded_share:.1%} of the rows padding"
                )
        return said


@dataclass(frozen=True)
class Inputs:
    """The opened files of a run."""

    tokenizer: Tokenizer
    train: TrainingData
    val: TokenFile | None


def open_inputs(recipe: Recipe) -> Inputs:
    """Opens tokenizer and token files.

    Raises InputError when one is missing, damaged, or made with another tokenizer, when a file is too short for
    the model's context, and when the run folder holds a run that would be overwritten.
    """
    data = recipe.data
    for name, what in (("tokenizer", "the folder of a tokenizer"), ("train", "a token file to train on")):
        if not getattr(data, name):
            raise InputError(f"data.{name} is not set: give {what}, for example --data.{name} PATH.")
    tokenizer = Tokenizer.load(data.tokenizer)
    if tokenizer.vocab_size > recipe.model.vocab_size:
        raise InputError(
            f"the tokenizer in {data.tokenizer} has {tokenizer.vocab_size:,} tokens and model.vocab_size is "
            f"{recipe.model.vocab_size:,}: raise model.vocab_size, or train a smaller tokenizer."
        )
    train = _open_training_data(recipe, tokenizer)
    val = _open_tokens("val", data.val, recipe, tokenizer) if data.val else None
    _refuse_to_overwrite(recipe)
    return Inputs(tokenizer, train, val)


def _open_training_data(recipe: Recipe, tokenizer: Tokenizer) -> TrainingData:
    parts = read_mixture(recipe.data.train)
    files = tuple(_open_tokens("train", part.path, recipe, tokenizer) for part in parts)
    context, seed = recipe.model.sequence_length, recipe.train.seed
    running = tuple(SampleOrder(file.num_tokens, context, seed + n, shuffle=True) for n, file in enumerate(files))
    cuts: tuple[Cut, ...] = running
    sizes = [order.samples_per_epoch for order in running]
    if recipe.data.packing == "best_fit":
        rows = tuple(open_packing(file, context) for file in files)
        cuts, sizes = rows, [each.num_rows for each in rows]
    weights = [part.weight or size for part, size in zip(parts, sizes, strict=True)]
    try:
        blend = Blend(weights)
    except ValueError as error:
        raise InputError(f"data.train = {recipe.data.train}: {error}") from None
    if recipe.data.packing == "megatron":
        samples = recipe.train.steps * (recipe.train.batch_tokens // context)
        cuts = tuple(
            open_megatron_order(file, context, seed + n, math.ceil(samples * Fraction(weights[n]) / sum(weights)))
            for n, file in enumerate(files)
        )
    return TrainingData(files, cuts, blend)


def _open_tokens(name: str, path: str, recipe: Recipe, tokenizer: Tokenizer) -> TokenFile:
    file = TokenFile(path)
    made_with = (file.manifest or {}).get("tokenizer")
    if made_with and made_with != tokenizer.fingerprint:
        raise InputError(
            f"{path} was made with another tokenizer than {recipe.data.tokenizer}: give the tokenizer it was made "
            "with (--data.tokenizer), or make the token file again with data_tools/preprocess.py."
        )
    try:
        SampleOrder(file.num_tokens, recipe.model.sequence_length, recipe.train.seed, shuffle=name == "train")
    except ValueError as error:
        raise InputError(f"data.{name} = {path}: {error}") from None
    return file


def _refuse_to_overwrite(recipe: Recipe) -> None:
    folder = Path(recipe.run.folder)
    root = folder / "checkpoints"
    if not recipe.run.resume and root.exists() and any(root.iterdir()):
        raise InputError(
            f"{folder} already holds a run: go on with it (--run.resume), or give another folder (--run.folder)."
        )
