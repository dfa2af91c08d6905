"""How much longer a step takes that saves: steps of the demo's size, with a checkpoint every so many.

    python benchmarks/saving_step.py [--steps 60] [--every 4] [--folder F]

Prints the median seconds of the steps that save (the copy of the state included), of those after them, while the
checkpoint is being written in the background, and of the others; and the seconds that a checkpoint took to write.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from megatron_iberis.checkpoint.save import CheckpointWriter
from megatron_iberis.config import load_recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import start_process_group
from megatron_iberis.training.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps that are measured (default: 60)")
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints, 3 or more (default: 4)")
    parser.add_argument("--folder", help="where to save; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(Path(arguments.folder or temporary), arguments.steps, arguments.every)


def measure(folder: Path, steps: int, every: int) -> None:
    """Trains on random tokens and saves into `folder`; prints the table."""
    recipe = load_recipe("demo", ["--checkpoint.keep_last=2"])
    device = start_process_group(recipe.parallel.timeout_minutes)
    groups = ParallelGroups.create()
    engine = Engine(recipe, groups, device)
    writer = CheckpointWriter(folder / "checkpoints", recipe, None, engine.state)
    times: dict[str, list[float]] = {"saves": [], "is after one that saves": [], "neither": []}
    for step in range(-2, steps):  # two to warm up
        batches = random_batches(recipe.train.device_batch, recipe.model.sequence_length, engine.accumulation, step)
        started = time.perf_counter()
        engine.step(step + 2, batches)
        if step >= 0 and step % every == 0:
            writer.save(step + 1)
        seconds = time.perf_counter() - started
        if step >= 0:
            place = {0: "saves", 1: "is after one that saves"}.get(step % every, "neither")
            times[place].append(seconds)
    writer.finish()
    usual = statistics.median(times["neither"])
    for place, seconds_of in times.items():
        median = statistics.median(seconds_of)
        print(f"a step that {place:<26}{median:8.4f} s  x {median / usual:.3f}   ({len(seconds_of)} steps)")
    written = statistics.median(outcome.seconds for outcome in writer.outcomes())
    print(f"a checkpoint, in the background    {written:8.4f} s")


def random_batches(rows: int, context: int, count: int, seed: int) -> list[Batch]:
    """Micro-batches of one step."""
    generator = torch.Generator().manual_seed(seed + 2)
    tokens = torch.randint(4096, (count, rows, context + 1), generator=generator)
    return [Batch(t[:, :-1].contiguous(), t[:, 1:].contiguous()) for t in tokens]


if __name__ == "__main__":
    main()
