"""Training from the start of a golden trajectory (tests/golden/README.md), on ranks that are there already."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load_file

from megatron_iberis.config import OptimizerConfig, ParallelConfig, Recipe, TrainConfig
from megatron_iberis.data.batches import Batch
from megatron_iberis.training.engine import Engine, StepResult
from tests.support.golden_cases import GOLDEN, model_config, tensors
from tests.support.ranks import groups_of


def trajectory(folder: str, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / folder / "trajectories.json").read_text())[variant]
    return found


def recipe(
    folder: str,
    variant: str,
    device_batch: int,
    deepspeed: dict[str, Any] | None = None,
    compile: bool = False,
    **parallel: Any,
) -> Recipe:
    model = model_config(f"{variant}_{'gqa' if folder == 'traj' else 'base'}")
    rates = {k: v for k, v in trajectory(folder, variant)["hyper_parameters"].items() if k != "weight_decay"}
    return Recipe(
        model=model,
        parallel=ParallelConfig(**parallel),
        optimizer=OptimizerConfig(newton_schulz_dtype="fp32", **rates),
        train=TrainConfig(steps=20, batch_tokens=4 * 32, device_batch=device_batch, dtype="fp32", compile=compile),
        deepspeed=deepspeed or {},
    ).resolved()


def run(
    folder: str,
    variant: str,
    name: str,
    device_batch: int,
    parallel: dict[str, Any],
    steps: int,
    device: str = "cpu",
) -> list[StepResult]:
    """Runs on a rank: the first steps of `name`. parallel: settings, `compile`, and DeepSpeed's under `deepspeed`."""
    wanted = recipe(folder, variant, device_batch, **parallel)
    groups = groups_of(wanted.parallel.tp, wanted.parallel.cp)
    start = tensors(f"{variant}_{'gqa' if folder == 'traj' else 'base'}", "weights")
    if name.endswith("zeroinit"):
        start = {k: torch.zeros_like(v) if k == "lm_head.weight" or "c_proj" in k else v for k, v in start.items()}
    engine = Engine(wanted, groups, torch.device(device), start)
    batches = load_file(GOLDEN / folder / "batches.safetensors")
    found = []
    for step in range(steps):
        micro = []
        for a in range(engine.accumulation):
            first = (a * groups.dp_size + groups.dp_rank) * device_batch
            rows = slice(first, first + device_batch)
            micro.append(Batch(batches["input_ids"][step, rows], batches["targets"][step, rows]))
        found.append(engine.step(step, micro))
    engine.deepspeed.destroy()
    return found


def check(found: list[list[StepResult]], folder: str, variant: str, name: str, steps: int, tolerance: float) -> None:
    """Each rank tells the golden trajectory's losses, step by step, and its norms of the raw gradient."""
    import pytest  # what only runs trajectories (benchmarks/gpu) does without

    golden = trajectory(folder, variant)[name]
    for rank in found:
        assert [s.loss for s in rank] == pytest.approx(golden["loss"][:steps], rel=0, abs=tolerance)
        assert [s.gradient_norm for s in rank] == pytest.approx(golden["grad_norm"][:steps], rel=10 * tolerance)


def deviation(found: list[list[StepResult]], folder: str, variant: str, name: str) -> float:
    """The largest deviation of any rank's loss from the golden trajectory."""
    golden = trajectory(folder, variant)[name]["loss"]
    return max(abs(step.loss - wanted) for rank in found for step, wanted in zip(rank, golden, strict=False))
