"""May this run resume from a checkpoint: another model, order of data or tokenizer is refused, the rest is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from megatron_iberis.checkpoint import files
from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.data.token_files.identity import is_other
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer

_REFUSED = ("model.", "train.batch_tokens", "train.seed", "optimizer.kind")
"""By which weights or optimizer state have another form, or a step's place in the data another meaning."""
_UNTOLD = (
    "run.folder",
    "run.resume",
    "run.start_from",
    "data.tokenizer",
    "train.target_flops",
    "train.tokens_per_parameter",
)
"""The folder may have been moved; the tokenizer itself is compared; the last two come to train.steps."""


def check_same_run(
    recipe: Recipe, tokenizer: Tokenizer, token_files: Mapping[str, Mapping[str, Any]], checkpoint: Path
) -> list[str]:
    """What is other than before, and may be meant so, a sentence each.

    token_files: by path the `identity` of each file that is read now. Raises InputError when the checkpoint is of
    another model or tokenizer, or its place in the data would mean another one.
    """
    saved, told = load_recipe(checkpoint / "recipe.toml"), []
    refused = (*_REFUSED, "train.steps") if recipe.data.packing == "megatron" else _REFUSED
    for name, before, now in _changed(saved, recipe):
        if name.startswith(refused):
            raise InputError(
                f"the run in {checkpoint.parent.parent} has {name} = {before}, not {now}: leave it as it was, or "
                "start a new run with another --run.folder."
            )
        if not name.startswith(_UNTOLD):
            told.append(f"{name} was {_shown(before)} up to here and is {_shown(now)} from now on")
    own = checkpoint / "tokenizer"
    if own.is_dir() and Tokenizer.load(own).fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"the run in {checkpoint.parent.parent} was trained with another tokenizer than {recipe.data.tokenizer}: "
            f"give the one it has (--data.tokenizer {own}), or start a new run with another --run.folder."
        )
    return told + list(_other_files(token_files, checkpoint))


def _changed(saved: Recipe, recipe: Recipe) -> Iterator[tuple[str, object, object]]:
    """Dotted name, value before and value now of all settings that differ."""
    for section in fields(Recipe):
        before, now = getattr(saved, section.name), getattr(recipe, section.name)
        if not is_dataclass(now):  # the table for DeepSpeed
            if before != now:
                yield section.name, before, now
            continue
        for setting in fields(now):
            pair = getattr(before, setting.name), getattr(now, setting.name)
            if pair[0] != pair[1]:
                yield f"{section.name}.{setting.name}", *pair


def _shown(value: object) -> object:
    return "nothing" if value in ("", (), {}) else value


def _other_files(token_files: Mapping[str, Mapping[str, Any]], checkpoint: Path) -> Iterator[str]:
    """Of token files that have the paths that they had, those that hold something else."""
    before = json.loads((checkpoint / files.STATE).read_text(encoding="utf-8")).get("token_files", {})
    for path, now in token_files.items():
        if path in before and is_other(before[path], now):
            held, holds = (
                f"{each['tokens']:,} tokens in {each['documents']:,} documents" for each in (before[path], now)
            )
            yield f"{path} is another file from now on: up to here it held {held}, and holds {holds} of other content"
