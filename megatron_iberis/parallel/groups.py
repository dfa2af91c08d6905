"""The process groups of a run, and the `mpu` object that DeepSpeed is given.

* Ranks are laid out with tensor parallelism fastest, then context, then data: ranks 0 .. TP-1 split one copy of the
  model, the CP copies after each other split one batch of sequences.
* Groups are held by a `ParallelGroups` and handed to whoever needs them; megatron-core's global
  `parallel_state` is not used.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.process_groups_config import ProcessGroupCollection
from torch.distributed import distributed_c10d

from megatron_iberis.config import ParallelConfig
from megatron_iberis.parallel.node import cores_of_this_node, ranks_on_this_node


@dataclass(frozen=True)
class ParallelGroups:
    """This rank's groups, and the ranks in them."""

    tp: Any
    """The ranks that share one copy of the model."""
    cp: Any
    """The ranks that share the sequences of one batch."""
    dp: Any
    """The ranks with the same part of the model and of the sequences, for different batches."""
    dp_cp: Any
    """The ranks with the same part of the model, context x data: gradients are averaged, ZeRO shards over it."""
    alone: Any
    """A group of this rank only, for the kinds of parallelism that are not used."""
    tp_ranks: tuple[int, ...]
    cp_ranks: tuple[int, ...]
    dp_ranks: tuple[int, ...]
    dp_cp_ranks: tuple[int, ...]

    @classmethod
    def create(cls, tp: int = 1, cp: int = 1) -> ParallelGroups:
        """Groups over all ranks of the default process group; every rank must call this.

        Raises ValueError when the number of processes is no multiple of tp x cp.
        """
        world, rank = dist.get_world_size(), dist.get_rank()
        ParallelConfig(tp=tp, cp=cp).check_processes(world)
        one = tp * cp  # ranks that work on one batch
        sets: dict[str, list[tuple[int, ...]]] = {
            "tp": [tuple(range(first, first + tp)) for first in range(0, world, tp)],
            "cp": [tuple(range(first + t, first + one, tp)) for first in range(0, world, one) for t in range(tp)],
            "dp": [tuple(range(first, world, one)) for first in range(one)],
            "dp_cp": [tuple(range(first, world, tp)) for first in range(tp)],
            "alone": [(r,) for r in range(world)],
        }
        own: dict[str, tuple[Any, tuple[int, ...]]] = {}
        for kind, kind_sets in sets.items():
            for ranks in kind_sets:  # every rank takes part in making every group
                group = dist.new_group(list(ranks))
                if rank in ranks:
                    own[kind] = (group, ranks)
        groups = {kind: group for kind, (group, _) in own.items()}
        return cls(**groups, **{f"{kind}_ranks": ranks for kind, (_, ranks) in own.items() if kind != "alone"})

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


class DeepSpeedTopology:
    """What DeepSpeed asks of an `mpu`: its model-parallel group is our `tp`, its data-parallel one `dp_cp`.

    It must not have `initialize_sequence_parallel`: its presence makes DeepSpeed ignore tensor parallelism.
    """

    def __init__(self, groups: ParallelGroups) -> None:
        self._groups = groups

    def get_model_parallel_group(self) -> Any:
        return self._groups.tp

    def get_model_parallel_rank(self) -> int:
        return self._groups.tp_rank

    def get_model_parallel_world_size(self) -> int:
        return self._groups.tp_size

    get_tensor_model_parallel_group = get_model_parallel_group
    get_tensor_model_parallel_rank = get_model_parallel_rank
    get_tensor_model_parallel_world_size = get_model_parallel_world_size

    def get_tensor_model_parallel_src_rank(self) -> int:
        return self._groups.tp_ranks[0]

    def get_data_parallel_group(self) -> Any:
        return self._groups.dp_cp

    def get_data_parallel_group_ranks(self) -> list[int]:
        return list(self._groups.dp_cp_ranks)

    def get_data_parallel_rank(self) -> int:
        return self._groups.dp_cp_ranks.index(dist.get_rank())

    def get_data_parallel_world_size(self) -> int:
        return self._groups.dp_cp_size

    def get_pipeline_model_parallel_world_size(self) -> int:
        return 1

    def get_pipeline_model_parallel_rank(self) -> int:
        return 0

    def get_pipeline_model_parallel_group(self) -> Any:
        return self._groups.alone


def training_device() -> torch.device:
    """This rank's GPU, by LOCAL_RANK, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def start_process_group(timeout_minutes: float) -> torch.device:
    """Joins the run's process group (environment as a launcher sets it; alone without one); returns the device."""
    # megatron-core wants one queue, so that a gradient's all-reduce starts before the next matrix product.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    device = training_device()
    os.environ.setdefault("DS_ACCELERATOR", device.type)  # else DeepSpeed warns that it found no GPU
    timeout = datetime.timedelta(minutes=timeout_minutes)
    # new_group() knows only torch's own defaults (30 minutes, with NCCL 10), and DeepSpeed makes groups, too.
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = timeout
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:
        # Two ranks with a thread for every core each are slower than one rank alone.
        torch.set_num_threads(max(1, cores_of_this_node() // ranks_on_this_node()))
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=timeout)
        else:
            os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
            dist.init_process_group(backend, timeout=timeout, store=dist.HashStore(), rank=0, world_size=1)
    return device


def raise_on_any_rank(problem: str | None) -> None:
    """Raises ValueError on all ranks when one of them has a problem (the first one's), so that none waits on."""
    problems: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, problem)
    found = next((p for p in problems if p), None)
    if found:
        raise ValueError(found)
