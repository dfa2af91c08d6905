"""What ranks tell each other beside tensors: small Python objects, and problems that end the run for all of them."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist
from torch.distributed import ProcessGroup

from megatron_iberis.errors import InputError

T = TypeVar("T")


def gather_objects(value: T, group: ProcessGroup | None = None) -> list[T]:
    """Every rank's value, in the order of ranks; called by all ranks of the group (by default the run's) together."""
    everyone: list[T] = [value] * dist.get_world_size(group)
    dist.all_gather_object(everyone, value, group=group)
    return everyone


def raise_on_any_rank(problem: str | None) -> None:
    """Raises InputError on all ranks when one of them has a problem (the first one's), so that none waits on."""
    found = next((p for p in gather_objects(problem) if p), None)
    if found:
        raise InputError(found)
