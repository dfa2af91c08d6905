"""A checkpoint of weights and nothing of training: what a conversion leaves, and a run can start from.

    manifest.json  state.json  recipe.toml  tokenizer/  model-00000.safetensors  model-00001.safetensors ...

It is read as any other checkpoint is (weights.py). state.json says that there is nothing to resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError

from megatron_iberis.checkpoint import files
from megatron_iberis.checkpoint.verify import describe, write_manifest
from megatron_iberis.checkpoint.weights import save_tensors
from megatron_iberis.config import Recipe, save_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.run_folder import RECIPE, TOKENIZER
from megatron_iberis.storage.atomic import new_folder, write_json
from megatron_iberis.storage.refusals import check_new, explain
from megatron_iberis.tokenizer import Tokenizer

SHARD_BYTES = 2**30
"""A file is closed when it has reached so many bytes."""


def save_weights(
    folder: str | Path,
    recipe: Recipe,
    tokenizer: Tokenizer,
    weights: Mapping[str, torch.Tensor],
    step: int,
    origin: str,
) -> None:
    """Writes the folder, whole or not at all.

    weights: full tensors by canonical name, of any floating type; stored as fp32. step: the steps that they were
    trained for. origin: where they are from, in words. Raises InputError when the folder is there already or cannot
    be written.
    """
    check_new(folder)
    state = {"format": files.FORMAT, "step": step, "weights_only": True, "origin": origin}
    try:
        with new_folder(Path(folder)) as partial:
            write_json(partial / files.STATE, state)
            for number, shard in enumerate(_shards(weights)):
                save_tensors(shard, partial / f"model-{number:05d}.safetensors")
            save_recipe(recipe, partial / RECIPE)
            tokenizer.save(partial / TOKENIZER)
            written = sorted(path for path in partial.rglob("*") if path.is_file())
            write_manifest(partial, {path.relative_to(partial).as_posix(): describe(path) for path in written})
    except (OSError, SafetensorError) as error:
        raise InputError(explain(error, folder)) from None


def _shards(weights: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """The tensors in fp32, in their order, a file's worth at a time."""
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name in weights:
        shard[name] = weights[name].detach().to(torch.float32, copy=True).contiguous()  # no two share memory
        size += shard[name].nbytes
        if size >= SHARD_BYTES:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard
