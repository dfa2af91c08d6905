"""`train.device_batch = "auto"`: as many rows a micro-batch as fit in memory, by the plan, on every rank the same."""

from __future__ import annotations

from dataclasses import replace

import torch

from megatron_iberis.config import Recipe
from megatron_iberis.errors import InputError
from megatron_iberis.parallel.agreement import gather_objects
from megatron_iberis.parallel.node import ranks_on_this_node
from megatron_iberis.planner.layouts import micro_batches, own_layout, recipe_at
from megatron_iberis.planner.memory import FITS_BELOW
from megatron_iberis.planner.plan import predict_memory, this_cpu


def with_micro_batch(recipe: Recipe, device: torch.device, world: int) -> Recipe:
    """The recipe with a number where it says "auto"; called by all ranks together.

    Raises InputError where a single row is too much.
    """
    if recipe.train.device_batch:
        return recipe
    room = min(gather_objects(_room(device)))
    rows = largest_that_fits(recipe, world, room, device.type == "cuda")
    return replace(recipe, train=replace(recipe.train, device_batch=rows))


def largest_that_fits(recipe: Recipe, world: int, room: float, gpu: bool) -> int:
    """Rows of the largest micro-batch of a power of two that needs less than is safe of `room` bytes a rank."""
    parallel, train = recipe.parallel, recipe.train
    share = train.batch_tokens // recipe.model.sequence_length * parallel.tp * parallel.cp // world
    needed = 0.0
    for rows in reversed(micro_batches(share)):
        layout = own_layout(replace(recipe, train=replace(train, device_batch=rows)), world)
        assert layout
        _, memory, overhead = predict_memory(recipe_at(recipe, layout), layout, gpu)
        needed = memory.tensors + overhead
        if needed < FITS_BELOW * room:
            return rows
    raise InputError(
        f"one row a micro-batch needs {needed / 1e9:.1f} GB of a rank, and {FITS_BELOW * room / 1e9:.1f} are safe to "
        "take: spread the run over more ranks, or set parallel.recompute, parallel.zero_stage or parallel.tp (iberis "
        "plan tells which)."
    )


def _room(device: torch.device) -> float:
    """Bytes of a rank's device: of a GPU its memory, of a machine's memory each of its ranks has a share."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return this_cpu().memory / ranks_on_this_node()
