"""A trained model from a checkpoint folder, ready to answer in this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
from megatron_iberis.config import Recipe
from megatron_iberis.errors import InputError
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.kernels.cpu_threads import usable_cpus
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.chat import template_hash

Kind = Literal["fp32", "bf16", "int8"]
"""What weights are kept as. int8: activations and state in fp32, on a CPU."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be asked, with its tokenizer and the recipe that it was trained by."""

    decoder: Decoder
    tokenizer: Tokenizer
    recipe: Recipe
    step: int


def load_model(folder: str | Path, kind: Kind | None = None, device: str | None = None) -> LoadedModel:
    """Loads a checkpoint folder, or the newest whole checkpoint of a run folder.

    kind: by default bf16 on a GPU, fp32 on a CPU; device: by default the GPU where there is one. A damaged newest
    checkpoint is named on standard error, and the one before it is taken; another template of conversations than
    this version's is named, too. On a CPU torch's threads are set. Raises InputError when the folder holds no whole
    checkpoint, or int8 is asked for on a GPU.
    """
    checkpoint = CheckpointWeights(whole_checkpoint(Path(folder)))
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if kind == "int8" and place.type != "cpu":
        raise InputError("int8 weights are for CPUs: take bf16 on a GPU, or the CPU (--device cpu).")
    kind = kind or ("bf16" if place.type == "cuda" else "fp32")
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    recipe = checkpoint.recipe
    if recipe.run.template and recipe.run.template != template_hash():
        print(
            f"note: {folder} has learned conversations in another template ({recipe.run.template}) than this "
            f"version's ({template_hash()}): expect worse answers, finetune it anew.",
            file=sys.stderr,
        )
    if place.type == "cpu":
        torch.set_num_threads(usable_cpus())
    with torch.inference_mode():
        decoder = Decoder(recipe.model, checkpoint.weights, dtype, place, body=kind, head=kind)
    loaded = LoadedModel(decoder, Tokenizer.load(checkpoint.tokenizer), recipe, checkpoint.step)
    checkpoint.close()
    return loaded
