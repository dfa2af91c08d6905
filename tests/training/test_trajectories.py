"""Training is upstream's, step by step: losses of the golden trajectories, in one process and in two."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megatron_iberis.config import OptimizerConfig, ParallelConfig, Recipe, TrainConfig
from megatron_iberis.data.batches import Batch
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.training.engine import Engine
from tests.golden_cases import GOLDEN, model_config, tensors
from tests.ranks import Ranks


def trajectory(folder: str, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / folder / "trajectories.json").read_text())[variant]
    return found


def recipe(folder: str, variant: str, device_batch: int, **parallel: Any) -> Recipe:
    model = model_config(f"{variant}_{'gqa' if folder == 'traj' else 'base'}")
    rates = {k: v for k, v in trajectory(folder, variant)["hyper_parameters"].items() if k != "weight_decay"}
    return Recipe(
        model=model,
        parallel=ParallelConfig(**parallel),
        optimizer=OptimizerConfig(newton_schulz_dtype="fp32", **rates),
        train=TrainConfig(steps=20, batch_tokens=4 * 32, device_batch=device_batch, dtype="fp32"),
    ).resolved()


def losses(
    folder: str, variant: str, zeroed: bool, device_batch: int, parallel: dict[str, Any], steps: int
) -> list[float]:
    """Runs on a rank: the losses of the first steps from the golden start."""
    wanted = recipe(folder, variant, device_batch, **parallel)
    groups = ParallelGroups.create(wanted.parallel.tensor)
    start = tensors(f"{variant}_{'gqa' if folder == 'traj' else 'base'}", "weights")
    if zeroed:
        start = {k: torch.zeros_like(v) if k == "lm_head.weight" or "c_proj" in k else v for k, v in start.items()}
    engine = Engine(wanted, groups, torch.device("cpu"), start)
    batches = load_file(GOLDEN / folder / "batches.safetensors")
    found = []
    for step in range(steps):
        micro = []
        for a in range(engine.accumulation):
            first = (a * groups.data_size + groups.data_rank) * device_batch
            rows = slice(first, first + device_batch)
            micro.append(Batch(batches["input_ids"][step, rows], batches["targets"][step, rows]))
        found.append(engine.step(step, micro).loss)
    engine.deepspeed.destroy()
    return found


CASES = [
    ("traj", "en", "C_f32tab_f32ns_zeroinit", 20),
    ("traj", "jp", "C_f32tab_f32ns_zeroinit", 20),
    ("traj", "en", "C_f32tab_f32ns", 20),
    ("traj", "jp", "C_f32tab_f32ns", 5),
    ("traj_base", "en", "C_f32tab_f32ns_zeroinit", 20),
    ("traj_base", "jp", "C_f32tab_f32ns_zeroinit", 20),
    ("traj_base", "en", "C_f32tab_f32ns", 20),
]


def check(found: list[list[float]], folder: str, variant: str, name: str, steps: int, tolerance: float) -> None:
    golden = trajectory(folder, variant)[name]["loss"][:steps]
    for rank in found:
        worst = max(abs(a - b) for a, b in zip(rank, golden, strict=True))
        assert worst <= tolerance, f"{worst:.2e} off: {rank} for {golden}"


@pytest.mark.parametrize(("folder", "variant", "name", "steps"), CASES)
def test_losses_equal_golden_in_one_process(
    one_rank: Ranks, folder: str, variant: str, name: str, steps: int
) -> None:
    found = one_rank(losses, folder, variant, "zeroinit" in name, 4, {"zero_stage": 0}, steps)
    check(found, folder, variant, name, steps, 1e-5)


@pytest.mark.parametrize(("folder", "variant", "name", "steps"), CASES)
def test_losses_equal_golden_at_dp2_zero1(two_ranks: Ranks, folder: str, variant: str, name: str, steps: int) -> None:
    found = two_ranks(losses, folder, variant, "zeroinit" in name, 2, {"zero_stage": 1}, steps)
    check(found, folder, variant, name, steps, 1e-5)
