"""Engines around a model of a few thousand weights, and what a few steps make of them, on ranks that are there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from megatron_iberis.config import ModelConfig, OptimizerConfig, ParallelConfig, Recipe, TrainConfig
from megatron_iberis.data.batches import Batch
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.training.engine import Engine, StepResult
from tests.support.comparison import randomise
from tests.support.ranks import groups_of

ROWS, SEQUENCE_LENGTH = 8, 16
MODEL = ModelConfig(
    depth=4,  # SLC2, attention, SLC2, attention
    width=32,
    heads=4,
    kv_heads=1,  # shared by both ranks of TP 2, as A_proj is
    mlp_hidden=48,
    inner_norm=True,
    vocab_size=61,  # padded to 62 at TP 2
    sequence_length=SEQUENCE_LENGTH,
).resolved()
PURE_ATTENTION = replace(MODEL, slc_rate=1)


@dataclass(frozen=True)
class Layout:
    """How the engine is spread, and over how many micro-batches of so many rows."""

    stage: int = 0
    tp: int = 1
    cp: int = 1
    sequence_parallel: bool = False
    rows: int = ROWS
    sub_groups: bool = False
    """ZeRO stage 3 in many small sub-groups, each parameter fetched and dropped again."""

    def __str__(self) -> str:
        words = (
            f"tp{self.tp}",
            "sequence" * self.sequence_parallel,
            f"cp{self.cp}",
            f"zero{self.stage}",
            "subgroups" * self.sub_groups,
        )
        return "-".join(word for word in (*words, f"rows{self.rows}") if word)


def recipe(
    layout: Layout, dtype: str = "fp32", steps: int = 20, model: ModelConfig = MODEL, **optimizer: Any
) -> Recipe:
    small = {"sub_group_size": 500, "stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 0}
    return Recipe(
        model=model,
        parallel=ParallelConfig(
            tp=layout.tp,
            cp=layout.cp,
            sequence_parallel=layout.sequence_parallel,
            zero_stage=layout.stage,  # type: ignore[arg-type]
        ),
        optimizer=OptimizerConfig(newton_schulz_dtype="fp32", **optimizer),
        train=TrainConfig(
            steps=steps,
            batch_tokens=ROWS * SEQUENCE_LENGTH,
            device_batch=layout.rows,
            dtype=dtype,  # type: ignore[arg-type]
        ),
        deepspeed={"zero_optimization": small} if layout.sub_groups else {},
    ).resolved()


def start_weights(model: ModelConfig = MODEL) -> dict[str, torch.Tensor]:
    """Full tensors by canonical name with which every part of the model has a gradient."""
    reference = ReferenceIberis(model)
    randomise(reference, 0)
    return {name: tensor.clone() for name, tensor in reference.state_dict().items()}


def engine(recipe: Recipe, weights: dict[str, torch.Tensor] | None = None) -> Engine:
    """From the weights, or from the start of a new model."""
    groups = groups_of(recipe.parallel.tp, recipe.parallel.cp)
    return Engine(recipe, groups, torch.device("cpu"), weights)


def master_weights(engine: Engine) -> dict[str, torch.Tensor]:
    """The full tensors that this rank owns, from the fp32 tensors that the optimizer updates."""
    return full_tensors(engine, [flat.tensor.detach() for flat in engine.state.layout])


def full_tensors(engine: Engine, flats: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The full tensors that this rank owns, from flat ones that are laid out as the optimizer's are."""
    exchange = engine.state.exchange([flat.tensor for flat in engine.state.layout], _even)
    return exchange.gather(flats, torch.float32)


def _even(shape: tuple[int, ...]) -> float:
    return 1.0


def own_micro_batches(engine: Engine, tokens: torch.Tensor, targets: torch.Tensor) -> list[Batch]:
    """This rank's share of a step's rows [ROWS, T]."""
    size, groups = engine.recipe.train.device_batch, engine.groups
    firsts = [(a * groups.dp_size + groups.dp_rank) * size for a in range(engine.accumulation)]
    return [Batch(tokens[f : f + size], targets[f : f + size]) for f in firsts]


def steps(
    recipe: Recipe, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[list[StepResult], dict[str, torch.Tensor]]:
    """Runs on a rank: one step a batch; what each said, and the weights that this rank owns then."""
    running = engine(recipe, start_weights(recipe.model))
    results = [running.step(i, own_micro_batches(running, *batch)) for i, batch in enumerate(batches)]
    weights = {name: tensor.clone() for name, tensor in master_weights(running).items()}
    running.deepspeed.destroy()
    return results, weights


def gradients(
    recipe: Recipe, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[list[StepResult], dict[str, torch.Tensor]]:
    """Runs on a rank: a step on the first batch; what it said, and the clipped gradients that this rank owns."""
    running, seen = engine(recipe, start_weights(recipe.model)), dict[int, torch.Tensor]()
    clip = running.optimizer._clip

    def clipped(tensors: list[torch.Tensor]) -> None:
        clip(tensors)
        seen.update({id(p): p.grad.clone() for p in tensors if p.grad is not None})

    running.optimizer._clip = clipped  # type: ignore[method-assign]
    result = running.step(0, own_micro_batches(running, *batches[0]))
    owned = full_tensors(running, [seen.get(id(f.tensor), torch.zeros_like(f.tensor)) for f in running.state.layout])
    owned = {name: tensor.clone() for name, tensor in owned.items()}
    running.deepspeed.destroy()
    return [result], owned


def merged(found: list[tuple[list[StepResult], dict[str, torch.Tensor]]]) -> dict[str, torch.Tensor]:
    """All ranks' weights together."""
    return {name: tensor for _, owned in found for name, tensor in owned.items()}
