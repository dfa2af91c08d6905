"""What DeepSpeed 0.19.8 and the optimizer keep on a rank at each ZeRO stage, as our engine uses them; bytes.

Read from its code, class by class, and each held against what a real run allocates (tests/planner). What surprises:

* bf16 at stage 1 is `BF16_Optimizer`: whole fp32 gradient sums on every rank. A bf16 gradient goes into them when it
  is made, by way of a copy in fp32, and they are reduced where they are.
* Stages 1 (fp32), 2 and 3 have a bucket of `reduce_bucket_size` elements, 500 million by default: 1 or 2 GB.
* fp32 at stages 1 and 2 keeps the whole gradient of each parameter of which a part is this rank's.
* Stage 3 puts its parameters together from a flat message, so that what is being fetched is there twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from megatron_iberis.config import OptimizerConfig, Recipe
from megatron_iberis.planner.parameters import GROUPS, Parameter, heaviest_owner, parameters_of
from megatron_iberis.training.newton_schulz import batch_size, precision

ALL_REDUCE_ELEMENTS = 500_000_000
"""Gradients are flattened for the engine's own all-reduce until there are more than so many."""


@dataclass(frozen=True)
class Spread:
    """How a model's state is spread: ZeRO shards over `replicas` ranks, of `world` in all."""

    tp: int
    replicas: int
    world: int
    accumulation: int
    gpu: bool = True
    """There Muon takes all matrices of a shape as a batch, on a CPU fewer."""


@dataclass(frozen=True)
class States:
    """Bytes on a rank; what is not there for a whole step says when it is."""

    weights: float
    moments: float
    """The optimizer's."""
    gradients: float
    """There when the last micro-batch of a step begins."""
    master: float = 0.0
    """fp32 weights beside those that are trained with."""
    buffers: float = 0.0
    """Always there."""
    collected: float = 0.0
    """Room for that micro-batch's gradients, made when the first of them is reduced."""
    grown: float = 0.0
    """More gradients, for each byte of weights, which that micro-batch leaves part by part."""
    bucket: float = 0.0
    """Only during the backward pass."""
    bucket_elements: float = float("inf")
    """Gradients that are reduced together."""
    reduction: float = 0.0
    """For a moment while a bucket is reduced, for each of its elements."""
    added: float = 0.0
    """For a moment while a parameter's gradient goes into the sums, for each of its elements, itself included."""
    reduced: float = 0.0
    """Gradients that are left when the backward pass is done."""
    gathered: float = 0.0
    """Whole parameters during forward and backward (stage 3)."""
    message: float = 0.0
    """What is being gathered, once more, when forward and backward begin."""
    step: float = 0.0
    """For a moment in the optimizer."""


def states_of(recipe: Recipe, spread: Spread) -> States:
    """What the recipe's model takes on a rank of the spread."""
    parameters = parameters_of(recipe.model, spread.tp)
    sizes = {group: [p.numel for p in parameters if p.group == group] for group in GROUPS}
    stage, bf16 = recipe.parallel.zero_stage, recipe.train.dtype == "bf16"
    form = (
        _stage0 if stage == 0 else _stage3 if stage == 3 else _bf16_stage1 if bf16 and stage == 1 else _stage1_and_2
    )
    return form(recipe, spread, parameters, sizes)


Sizes = dict[str, list[int]]


def _stage0(recipe: Recipe, spread: Spread, parameters: list[Parameter], sizes: Sizes) -> States:
    total = sum(map(sum, sizes.values()))
    held = {group: sum(of) for group, of in sizes.items()}
    return States(
        weights=4 * total,
        moments=_moments(recipe, held),
        gradients=4 * total if spread.accumulation > 1 else 0.0,
        grown=0.0 if spread.accumulation > 1 else 4.0,
        reduced=4 * total,
        reduction=4.0,
        bucket_elements=_flattened([p.numel for p in parameters]),
        step=_muon(recipe, spread, parameters, held["matrix"]),
    )


def _bf16_stage1(recipe: Recipe, spread: Spread, parameters: list[Parameter], sizes: Sizes) -> States:
    total = sum(map(sum, sizes.values()))
    held = {group: _partition(sum(of), spread.replicas) for group, of in sizes.items()}
    return States(
        weights=2 * total,
        moments=_moments(recipe, held),
        master=4 * sum(held.values()),
        gradients=4 * total,
        added=6.0,
        reduced=4 * total,
        step=_muon(recipe, spread, parameters, held["matrix"]),
    )


def _stage1_and_2(recipe: Recipe, spread: Spread, parameters: list[Parameter], sizes: Sizes) -> States:
    total = sum(map(sum, sizes.values()))
    held = {group: _partition(sum(of), spread.replicas) for group, of in sizes.items()}
    part, several, bf16 = sum(held.values()), spread.accumulation > 1, recipe.train.dtype == "bf16"
    second, elements = recipe.parallel.zero_stage == 2, _setting(recipe, "reduce_bucket_size", 500_000_000)
    touched = sum(_touched(sizes[group], held[group]) for group in GROUPS)
    muon = _muon(recipe, spread, parameters, held["matrix"])
    collected = 0.0
    if bf16:  # one flat fp32 sum of this rank's part, which the first micro-batch makes
        gradients, grown, reduced, flat = 4.0 * part if several else 0.0, 0.0, 4.0 * part, 0.0
        collected = 0.0 if several else 4.0 * part
    elif second:  # the sums, and the whole gradients of this micro-batch that have a part here
        collected = 4.0 * touched
        gradients, grown, reduced, flat = 4.0 * touched if several else 0.0, 0.0, 4.0 * touched, 4.0
    else:
        gradients, grown, reduced, flat = 4.0 * total if several else 0.0, 0.0 if several else 4.0, 4.0 * touched, 4.0
    return States(
        weights=(2 if bf16 else 4) * total,
        moments=_moments(recipe, held),
        master=4 * part,
        gradients=gradients,
        collected=collected,
        grown=grown,
        bucket=(2.0 if bf16 else 4.0) * elements,
        bucket_elements=elements,
        reduction=6.0 if bf16 else 4.0,  # flattened, and in bf16 that in fp32
        reduced=reduced,
        step=flat * held["matrix"] + muon if muon else flat * max(held.values()),
    )


def _stage3(recipe: Recipe, spread: Spread, parameters: list[Parameter], sizes: Sizes) -> States:
    total, size = sum(map(sum, sizes.values())), 2 if recipe.train.dtype == "bf16" else 4
    held = {group: sum(-(-n // spread.replicas) for n in of) for group, of in sizes.items()}
    part, elements = sum(held.values()), _setting(recipe, "reduce_bucket_size", 500_000_000)
    kept = _setting(recipe, "stage3_param_persistence_threshold", 100_000)
    persistent = sum(p.numel for p in parameters if p.numel <= kept)
    several = spread.replicas > 1  # one rank alone has everything in its place
    live = min(total, _setting(recipe, "stage3_max_live_parameters", 1_000_000_000))
    message = min(total, max(_setting(recipe, "stage3_prefetch_bucket_size", 50_000_000), *map(max, sizes.values())))
    return States(
        weights=size * part,
        moments=_moments(recipe, held),
        master=4 * part,
        gradients=4 * part,
        buffers=4 * elements + size * persistent,
        gathered=size * live * several,
        message=size * message * several,
        bucket_elements=elements,
        reduction=4.0 + 4.0 / spread.replicas,
        reduced=4 * part,
        step=4 * held["matrix"] + _muon(recipe, spread, parameters, held["matrix"]),
    )


def _moments(recipe: Recipe, held: dict[str, int]) -> float:
    """fp32: Muon's momentum of matrices, AdamW's two moments of all others."""
    muon = recipe.optimizer.kind == "muon"
    return sum((4.0 if muon and group == "matrix" else 8.0) * numel for group, numel in held.items())


def _muon(recipe: Recipe, spread: Spread, parameters: list[Parameter], held: int) -> float:
    """Directions take the gradients' memory. What is sent there and back, of `held` elements, is in Newton-Schulz's
    precision: the messages, and the full matrices put together from them. Of what is orthogonalised at once there are
    four copies."""
    config = recipe.optimizer
    if config.kind != "muon":
        return 0.0
    size = 2 if config.newton_schulz_dtype == "bf16" else 4
    shapes = heaviest_owner(parameters, spread.world, config).shapes
    at_once = [math.prod(shape) * _batch(shape, shapes.count(shape), config, spread) for shape in shapes]
    sent = sent_elements(recipe, spread, parameters, held)
    copies = 3.0 if recipe.parallel.zero_stage else 1.0 + (1 + spread.replicas) / spread.world  # to every replica
    return size * (copies * sent + 4.0 * max(at_once, default=0))


def _batch(shape: tuple[int, ...], count: int, config: OptimizerConfig, spread: Spread) -> int:
    return min(count, batch_size(shape, precision(config), "cuda" if spread.gpu else "cpu") or count)


def sent_elements(recipe: Recipe, spread: Spread, parameters: list[Parameter], held: float) -> float:
    """Of `held` elements of matrices on a rank those that do not lie whole on their owners: at stages 1 and 2 without
    tensor parallelism what a border between partitions cuts, at most one matrix at each end; else all."""
    if spread.world == 1:
        return 0.0
    matrices = [p.numel for p in parameters if p.group == "matrix"]
    cut = spread.tp == 1 and recipe.parallel.zero_stage in (1, 2)
    return min(held, 2.0 * max(matrices)) if cut else held


def _partition(numel: int, replicas: int) -> int:
    """A rank's part of a flat group, whose length is rounded up to 2 elements for each rank."""
    return -(-numel // (2 * replicas)) * 2


def _touched(sizes: list[int], partition: int) -> int:
    """Elements of all parameters that reach into the first partition, whole."""
    total = 0
    for numel in sizes:
        if total >= partition:
            break
        total += numel
    return total


def _flattened(sizes: list[int]) -> float:
    """The most elements that the engine's own all-reduce flattens at once."""
    most = bucket = 0
    for numel in sizes:
        bucket += numel
        most = max(most, bucket)
        if bucket > ALL_REDUCE_ELEMENTS:
            bucket = 0
    return most


def _setting(recipe: Recipe, name: str, default: int) -> int:
    table: dict[str, Any] = recipe.deepspeed.get("zero_optimization", {})
    return int(table.get(name, default))
