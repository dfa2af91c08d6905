"""May this run go on from that checkpoint: another model, order of data or tokenizer is refused, the rest is told."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer

_TOLD = {"data": ("train", "packing", "document_mask"), "train": ("steps", "dtype"), "optimizer": None}


def check_same_run(recipe: Recipe, tokenizer: Tokenizer, checkpoint: Path) -> list[str]:
    """What is other than before, and may be meant so, a sentence each.

    Raises InputError when the checkpoint is of another model or tokenizer, or its place in the data would mean
    another one.
    """
    saved = load_recipe(checkpoint / "recipe.toml")
    order = ["batch_tokens", "seed", *(["steps"] if recipe.data.packing == "megatron" else [])]
    for section, names in (("model", None), ("train", order)):
        for name, before, now in _changed(saved, recipe, section, names):
            raise InputError(
                f"the run in {checkpoint.parent.parent} has {section}.{name} = {before}, not {now}: leave it as it "
                "was, or start a new run with another --run.folder."
            )
    own = checkpoint / "tokenizer"
    if own.is_dir() and Tokenizer.load(own).fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"the run in {checkpoint.parent.parent} was trained with another tokenizer than {recipe.data.tokenizer}: "
            f"give the one it has (--data.tokenizer {own}), or start a new run with another --run.folder."
        )
    return [
        f"{section}.{name} was {before} up to here and is {now} from now on"
        for section, names in _TOLD.items()
        for name, before, now in _changed(saved, recipe, section, names)
    ]


def _changed(
    saved: Recipe, recipe: Recipe, section: str, names: list[str] | tuple[str, ...] | None
) -> list[tuple[str, object, object]]:
    """Name, value before and value now of the settings of a section (by default all) that differ."""
    before, now = getattr(saved, section), getattr(recipe, section)
    every = names or [field.name for field in fields(now)]
    return [(n, getattr(before, n), getattr(now, n)) for n in every if getattr(before, n) != getattr(now, n)]
