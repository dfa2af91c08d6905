"""What tests ask an engine."""

from __future__ import annotations

import torch

from megatron_iberis.inference.engine import Engine


def sequence(length: int, seed: int = 0) -> list[int]:
    """Random ids below 64."""
    return torch.randint(64, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def finish(engine: Engine, steps: int = 2000) -> None:
    """Steps until nothing is left to do."""
    for _ in range(steps):
        if engine.idle:
            return
        engine.step()
    raise AssertionError("the engine does not come to an end")
