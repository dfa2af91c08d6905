"""The process groups of a run.

* Ranks are laid out with tensor parallelism fastest, then context, then data: ranks 0 .. TP-1 split one copy of the
  model, the CP copies after each other split one batch of sequences.
* Groups are held by a `ParallelGroups` and handed to whoever needs them; megatron-core's global
  `parallel_state` is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from megatron.core.process_groups_config import ProcessGroupCollection
from torch.distributed import ProcessGroup

from megatron_iberis.config import ParallelConfig


@dataclass(frozen=True)
class ParallelGroups:
    """This rank's groups, and the ranks in them."""

    tp: ProcessGroup
    """The ranks that share one copy of the model."""
    cp: ProcessGroup
    """The ranks that share the sequences of one batch."""
    dp: ProcessGroup
    """The ranks with the same part of the model and of the sequences, for different batches."""
    dp_host: ProcessGroup
    """The same ranks as `dp`, for numbers on the hosts: to share them no device is waited for."""
    dp_cp: ProcessGroup
    """The ranks with the same part of the model, context x data: gradients are averaged, ZeRO shards over it."""
    alone: ProcessGroup
    """A group of this rank only, for the kinds of parallelism that are not used."""
    tp_ranks: tuple[int, ...]
    cp_ranks: tuple[int, ...]
    dp_ranks: tuple[int, ...]
    dp_cp_ranks: tuple[int, ...]

    @classmethod
    def create(cls, tp: int = 1, cp: int = 1) -> ParallelGroups:
        """Groups over all ranks of the default process group; every rank must call this.

        Raises InputError when the number of processes is no multiple of tp x cp.
        """
        world, rank = dist.get_world_size(), dist.get_rank()
        ParallelConfig(tp=tp, cp=cp).check_processes(world)
        one = tp * cp  # ranks that work on one batch
        sets: dict[str, list[tuple[int, ...]]] = {
            "tp": [tuple(range(first, first + tp)) for first in range(0, world, tp)],
            "cp": [tuple(range(first + t, first + one, tp)) for first in range(0, world, one) for t in range(tp)],
            "dp": [tuple(range(first, world, one)) for first in range(one)],
            "dp_host": [tuple(range(first, world, one)) for first in range(one)],
            "dp_cp": [tuple(range(first, world, tp)) for first in range(tp)],
            "alone": [(r,) for r in range(world)],
        }
        own: dict[str, tuple[ProcessGroup, tuple[int, ...]]] = {}
        for kind, kind_sets in sets.items():
            if kind == "dp_host" and dist.get_backend() == "gloo":
                own[kind] = own["dp"]
                continue
            for ranks in kind_sets:  # every rank takes part in making every group
                group = dist.new_group(list(ranks), backend="gloo" if kind == "dp_host" else None)
                if rank in ranks:
                    own[kind] = (group, ranks)
        groups = {kind: group for kind, (group, _) in own.items()}
        ranks_of = {f"{kind}_ranks": ranks for kind, (_, ranks) in own.items() if kind not in ("alone", "dp_host")}
        return cls(**groups, **ranks_of)

    @property
    def tp_size(self) -> int:
        return len(self.tp_ranks)

    @property
    def tp_rank(self) -> int:
        return self.tp_ranks.index(dist.get_rank())

    @property
    def cp_size(self) -> int:
        return len(self.cp_ranks)

    @property
    def cp_rank(self) -> int:
        return self.cp_ranks.index(dist.get_rank())

    @property
    def dp_cp_size(self) -> int:
        return len(self.dp_cp_ranks)

    @property
    def dp_size(self) -> int:
        return len(self.dp_ranks)

    @property
    def dp_rank(self) -> int:
        return self.dp_ranks.index(dist.get_rank())

    def collection(self) -> ProcessGroupCollection:
        """The same as megatron-core's modules want it."""
        groups = ProcessGroupCollection()
        groups.tp, groups.pp, groups.cp = self.tp, self.alone, self.cp
        groups.dp = groups.dp_cp = self.dp_cp
        return groups
