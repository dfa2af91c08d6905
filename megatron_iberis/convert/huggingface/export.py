"""`export`: a checkpoint -> a folder for transformers, whole and compared, or nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from megatron_iberis.checkpoint.weights import CheckpointWeights, save_tensors, whole_checkpoint
from megatron_iberis.config import Recipe, save_recipe
from megatron_iberis.config.run import RunConfig
from megatron_iberis.convert.exported import CONFIG, STEP
from megatron_iberis.convert.huggingface.card import card
from megatron_iberis.convert.huggingface.comparison import Difference, compare
from megatron_iberis.convert.huggingface.reported import CardPart, Reported
from megatron_iberis.convert.huggingface.tokenizer import END, fast_tokenizer, has_padding, tokenizer_config
from megatron_iberis.convert.names import check_names, sizes_for_hf
from megatron_iberis.errors import InputError
from megatron_iberis.run_folder import RECIPE, TOKENIZER
from megatron_iberis.storage.atomic import json_line, new_folder
from megatron_iberis.storage.refusals import check_new, explain
from megatron_iberis.tokenizer import Tokenizer

HERE = Path(__file__).parent
MODELLING = "modeling_iberis.py"
TEMPLATE = "chat_template.jinja"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OTHER_FILES = 50_000_000
"""Bytes, at the most, of all that is no weight."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    step: int
    parameters: int
    difference: Difference


def export(
    input: Path, output: Path, dtype: str = "fp32", shard_bytes: int = 5 * 10**9, report: Reported | None = None
) -> Exported:
    """Writes the folder `output`, and compares it with the checkpoint before it gets its name.

    input: a run's folder, or one of its checkpoints. dtype: "fp32" (bit for bit the checkpoint's weights) or "bf16".
    shard_bytes: of one file of weights, at the most, where a single tensor is not larger. report: becomes part of the
    model card, its pictures lie beside it. InputError if it is none of this model, if `input` holds
    no whole checkpoint, if `output` is there, or if it cannot be written; nothing is left then. RuntimeError if the
    comparison fails.
    """
    check_new(output)
    with closing(CheckpointWeights(whole_checkpoint(input))) as checkpoint:
        part = report.of(checkpoint.recipe, checkpoint.step or 0, checkpoint.folder) if report else None
        try:
            with new_folder(output) as partial:
                return Exported(output, *_write(checkpoint, partial, DTYPES[dtype], shard_bytes, part))
        except (OSError, SafetensorError) as error:
            raise InputError(explain(error, output)) from error


def _write(
    checkpoint: CheckpointWeights, folder: Path, dtype: torch.dtype, shard_bytes: int, report: CardPart | None
) -> tuple[int, int, Difference]:
    """All files of the export; the step, the parameters and the difference."""
    recipe = without_places(checkpoint.recipe)
    check_names(checkpoint.weights.shapes(), recipe.model, checkpoint.folder)
    tokenizer = Tokenizer.load(checkpoint.tokenizer)
    if tokenizer.vocab_size > recipe.model.vocab_size:
        raise InputError(
            f"the tokenizer in {checkpoint.tokenizer} has {tokenizer.vocab_size:,} ids and the model "
            f"{recipe.model.vocab_size:,}: put back the tokenizer that it was trained with."
        )
    parameters = recipe.model.parameter_count()
    _check_room(folder, parameters * dtype.itemsize + OTHER_FILES)
    padding = 0 if has_padding(tokenizer) else tokenizer.bos_id
    specials = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.specials[END], "pad_token_id": padding}
    code = MODELLING.removesuffix(".py")
    config = {
        # Programs that look this name up in transformers (its own `serve`, for one) find what loads our class.
        "architectures": ["AutoModelForCausalLM"],
        "auto_map": {"AutoConfig": f"{code}.IberisConfig", "AutoModelForCausalLM": f"{code}.IberisForCausalLM"},
        "dtype": str(dtype).removeprefix("torch."),
        **sizes_for_hf(recipe.model),
        **specials,
        STEP: checkpoint.step,
    }
    _write_json(folder / CONFIG, config)
    ends = [specials["eos_token_id"], specials["bos_token_id"]]  # with bos the next document begins
    _write_weights(checkpoint.weights, folder, dtype, shard_bytes)
    _write_json(folder / "generation_config.json", {**specials, "eos_token_id": ends})
    write_tokenizer(tokenizer, folder, recipe.model.sequence_length)
    _write_text(folder / MODELLING, (HERE / MODELLING).read_text(encoding="utf-8"))
    save_recipe(recipe, folder / RECIPE)  # for from-hf, this and the next
    tokenizer.save(folder / TOKENIZER)
    difference = compare(folder, recipe.model, checkpoint.weights, dtype, tokenizer)
    own = card(recipe, checkpoint.step, parameters, dtype, difference, tokenizer)
    _write_text(folder / "README.md", report.joined(own) if report else own)
    for name, picture in (report.pictures if report else {}).items():
        (folder / name).write_bytes(picture)
    return checkpoint.step, parameters, difference


def without_places(recipe: Recipe) -> Recipe:
    """The recipe without the paths of the machine that it was trained on: an export is for others."""
    data = replace(recipe.data, train="", val="", tokenizer="")
    return replace(recipe, data=data, run=RunConfig(stage=recipe.run.stage, template=recipe.run.template))


def write_tokenizer(tokenizer: Tokenizer, folder: Path, longest: int) -> None:
    """What `AutoTokenizer` reads. longest: tokens that the model was trained on at once."""
    _write_text(folder / "tokenizer.json", fast_tokenizer(tokenizer).to_str())
    _write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer, longest))
    _write_text(folder / TEMPLATE, (HERE / TEMPLATE).read_text(encoding="utf-8"))


def _check_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise InputError(
            f"the export takes {wanted / 2**30:.1f} GiB and the disk of {folder.parent} has {free / 2**30:.1f} GiB "
            "free: make room, or name a folder on another disk."
        )


def _write_weights(weights: Mapping[str, torch.Tensor], folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    """model.safetensors, or several files with an index as transformers looks for it."""
    shards = list(_shards({name: tensor.numel() * dtype.itemsize for name, tensor in weights.items()}, shard_bytes))
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
        _write_json(
            folder / "model.safetensors.index.json",
            {
                "metadata": {"total_size": sum(weights[name].numel() for name in weights) * dtype.itemsize},
                "weight_map": {name: file for file, names in zip(files, shards, strict=True) for name in names},
            },
        )
    for file, names in zip(files, shards, strict=True):
        tensors = {name: weights[name].to(dtype).contiguous() for name in names}
        save_tensors(tensors, folder / file, metadata={"format": "pt"})


def _shards(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """The names, in order, in groups of at most `most` bytes."""
    names: list[str] = []
    total = 0
    for name, size in sizes.items():
        if names and total + size > most:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    yield names


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(json_line(value, indent=2))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
