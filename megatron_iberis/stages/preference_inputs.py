"""What preference optimisation reads: pairs of answers, opened, rendered, counted and packed into rows.

As in `inputs.py` this is done, and found to fit together, before torch is imported or anything allocated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash

from megatron_iberis.checkpoint import files
from megatron_iberis.config import Recipe
from megatron_iberis.convert.exported import is_export
from megatron_iberis.data.preference_rows import PreferenceRows
from megatron_iberis.data.preferences import PairReader, Tally
from megatron_iberis.errors import InputError
from megatron_iberis.stages.conversation_inputs import with_tokenizer
from megatron_iberis.stages.inputs import open_tokenizer, refuse_to_overwrite
from megatron_iberis.stages.start_from import Start, find_start
from megatron_iberis.storage.hashing import hash_file
from megatron_iberis.tasks.preferences import open_preferences
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import template_hash


@dataclass(frozen=True)
class PreferenceInputs:
    """The tokenizer of a run, and its rows. recipe: with its steps, its tokenizer and the template filled in.

    tallies: by "pairs" and "held_out_pairs", what became of those of each file. start: None where a run is resumed.
    """

    recipe: Recipe
    tokenizer: Tokenizer
    train: PreferenceRows
    val: PreferenceRows | None
    tallies: Mapping[str, Mapping[str, Tally]]
    start: Start | None


def open_pairs(recipe: Recipe) -> PreferenceInputs:
    """Opens tokenizer and pairs, and finds the weights to start from.

    Raises InputError when one is missing or broken, when no pair could be trained on, when there is no model to begin
    with or it is another, and when the run folder holds a run that would be overwritten.
    """
    refuse_to_overwrite(recipe)
    if not recipe.preference.data:
        raise InputError("preference.data is empty: give files of pairs, for example --preference.data pairs.jsonl.")
    recipe = with_tokenizer(recipe)
    recipe = replace(recipe, run=replace(recipe.run, stage="chat", template=template_hash()))
    tokenizer = open_tokenizer(recipe)
    start = find_start(recipe, tokenizer)
    if not recipe.run.start_from and not recipe.run.resume:
        raise InputError(
            "run.start_from is not set: give the run or checkpoint of the chat model that is to learn what is "
            "preferred, for example --run.start_from runs/d20_sft."
        )
    batch = recipe.train.batch_tokens // recipe.model.sequence_length
    tallies, val = {}, None
    train, tallies["pairs"] = open_pair_rows(recipe, tokenizer, "data", batch)
    if recipe.preference.val:
        val, tallies["held_out_pairs"] = open_pair_rows(recipe, tokenizer, "val", 1)
    if recipe.train.steps == 0:
        steps = recipe.train.epochs * train.steps_per_epoch
        recipe = replace(recipe, train=replace(recipe.train, steps=steps))
    return PreferenceInputs(recipe, tokenizer, train, val, tallies, start)


def open_pair_rows(
    recipe: Recipe, tokenizer: Tokenizer, setting: str, batch: int
) -> tuple[PreferenceRows, dict[str, Tally]]:
    """The rows of preference.SETTING, `batch` to a step, and what became of each file's pairs.

    Raises InputError when there is no pair for them.
    """
    paths: Sequence[str] = getattr(recipe.preference, setting)
    length = recipe.model.sequence_length
    reader = PairReader(tokenizer, length, recipe.preference.over_long)
    for path in paths:
        reader.add(path, open_preferences(path))
    if not reader.pairs:
        told = "; ".join(f"{path}: {tally}" for path, tally in reader.tallies.items())
        raise InputError(
            f"no pair of preference.{setting} can be compared ({told}): give pairs whose answers differ, and raise "
            f"model.sequence_length, now {length:,}, where they are too long for a row."
        )
    return PreferenceRows(reader.pairs, length, batch, recipe.train.seed), reader.tallies


def hash_of_weights(folder: Path) -> str | None:
    """Tells the weights in a checkpoint or an export from others; None when they are not there any more.

    By the checksums of a checkpoint, which `run.start_from` compares before it takes them.
    """
    try:
        if is_export(folder):
            records = {path.name: hash_file(path, xxhash.xxh3_128()) for path in folder.glob("*.safetensors")}
        else:
            records = json.loads((folder / files.MANIFEST).read_bytes())["files"]
    except (OSError, ValueError):
        return None
    weights = {name: record for name, record in records.items() if name.startswith("model")}
    return hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()[:32]
