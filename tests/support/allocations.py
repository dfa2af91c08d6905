"""What tensors a real engine holds while it trains: the fact that a plan's memory is held against.

`Tracer` counts the storages that come and go, of real tensors here. Unlike the resident size of a process that knows
no libraries, no arenas and no pages that nobody touched, so it is the same in every run. That it agrees with torch's
allocator is a test of its own: the allocator's own counts can't be taken here, since they miss what gloo's threads
release.
"""

from __future__ import annotations

import torch

from megatron_iberis.config import Recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.planner.tracing import Tracer
from megatron_iberis.training.engine import Engine
from tests.support.ranks import groups_of


def most_allocated(recipe: Recipe, steps: int = 2) -> tuple[int, int]:
    """Runs on a rank: the most bytes held at once in some steps after the first, engine included; those of the
    optimizer's state."""
    tracer = Tracer()
    with tracer:
        running = Engine(recipe, groups_of(recipe.parallel.tp, recipe.parallel.cp), torch.device("cpu"))
        for step in range(1 + steps):
            running.step(step, [_batch(recipe) for _ in range(running.accumulation)])
            if step == 0:
                tracer.peak = tracer.live
    moments = (state.values() for state in running.optimizer.state.values())
    size = sum(tensor.nbytes for state in moments for tensor in state if tensor.dim())
    running.deepspeed.destroy()
    return tracer.peak, size


def _batch(recipe: Recipe) -> Batch:
    shape, vocabulary = (recipe.train.device_batch, recipe.model.sequence_length), recipe.model.vocab_size
    return Batch(torch.randint(vocabulary, shape), torch.randint(vocabulary, shape))
