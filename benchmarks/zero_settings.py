"""How long a step takes at each ZeRO stage, with buckets of several sizes, with messages behind the work and not.

    python -m torch.distributed.run --nproc_per_node 2 benchmarks/zero_settings.py [--recipe demo] [--steps 6] [...]

One rank a process, on GPUs where there are as many, else on the CPU; settings of the recipe may follow. Each form is
built and timed on random tokens, all of them twice, one after the other: medians of its steps, and the loss of the
last one, which is to be the same. What overlaps is DeepSpeed's `overlap_comm`, for stages 2 and 3.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group
from megatron_iberis.training.engine import Engine

BUCKETS = (1_000_000, 10_000_000, 500_000_000)
"""Elements; the last is DeepSpeed's default."""
ROUNDS, WARM_UP = 2, 2


def forms() -> dict[str, tuple[int, dict[str, Any]]]:
    """Stage and table zero_optimization of each."""
    found: dict[str, tuple[int, dict[str, Any]]] = {"ZeRO 1": (1, {})}
    for bucket in BUCKETS:
        for overlap in (False, True):
            name = f"ZeRO 2, bucket {bucket / 1e6:g} M{', overlapping' * overlap}"
            found[name] = (2, {"reduce_bucket_size": bucket, "overlap_comm": overlap})
    for overlap in (False, True):
        name = f"ZeRO 3, bucket 10 M{', overlapping' * overlap}"
        found[name] = (3, {"reduce_bucket_size": BUCKETS[1], "overlap_comm": overlap})
    return found


def measure(recipe: Recipe, groups: ParallelGroups, device: torch.device, steps: int) -> tuple[float, float]:
    """Median seconds of a step, and the loss of the last."""
    engine, took, loss = Engine(recipe, groups, device), [], 0.0
    generator = torch.Generator().manual_seed(groups.dp_rank)
    shape = (engine.accumulation, recipe.train.device_batch, recipe.model.sequence_length + 1)
    for step in range(WARM_UP + steps):
        tokens = torch.randint(recipe.model.vocab_size, shape, generator=generator)
        batches = [Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()) for rows in tokens]
        dist.barrier()
        started = time.perf_counter()
        loss = engine.step(step, batches).loss  # which waits for the device
        took.append(time.perf_counter() - started)
    engine.deepspeed.destroy()
    del engine
    gc.collect()  # engines are full of cycles
    return statistics.median(took[WARM_UP:]), loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo", help="a name or a file (default: demo)")
    parser.add_argument("--steps", type=int, default=6, help="of each form, twice (default: 6)")
    arguments, settings = parser.parse_known_args()
    device = start_process_group(timeout_minutes=10)
    groups = ParallelGroups.create()
    seconds: dict[str, list[float]] = {}
    losses: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, (stage, table) in forms().items():
            recipe = load_recipe(arguments.recipe, [*settings, f"--parallel.zero_stage={stage}"])
            recipe = replace(recipe, deepspeed={**recipe.deepspeed, "zero_optimization": table})
            found, losses[name] = measure(recipe, groups, device, arguments.steps)
            seconds.setdefault(name, []).append(found)
    if dist.get_rank() == 0:
        for name, both in seconds.items():
            print(f"{name:34}{' '.join(f'{s:7.3f} s' for s in both)}   loss {losses[name]:.4f}")


if __name__ == "__main__":
    main()
