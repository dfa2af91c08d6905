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

    tensor: Any
    """The ranks that share one copy of the model."""
    context: Any
    """The ranks that share the sequences of one batch."""
    data: Any
    """The ranks with the same part of the model and of the sequences, for different batches."""
    replica: Any
    """The ranks with the same part of the model, context x data: gradients are averaged, ZeRO shards over it."""
    alone: Any
    """A group of this rank only, for the kinds of parallelism that are not used."""
    tensor_ranks: tuple[int, ...]
    context_ranks: tuple[int, ...]
    data_ranks: tuple[int, ...]
    replica_ranks: tuple[int, ...]

    @classmethod
    def create(cls, tensor: int = 1, context: int = 1) -> ParallelGroups:
        """Groups over all ranks of the default process group; every rank must call this.

        Raises ValueError when the number of processes is no multiple of tensor x context.
        """
        world, rank = dist.get_world_size(), dist.get_rank()
        ParallelConfig(tensor=tensor, context=context).check_processes(world)
        one = tensor * context  # ranks that work on one batch
        sets: dict[str, list[tuple[int, ...]]] = {
            "tensor": [tuple(range(first, first + tensor)) for first in range(0, world, tensor)],
            "context": [
                tuple(range(first + t, first + one, tensor)) for first in range(0, world, one) for t in range(tensor)
            ],
            "data": [tuple(range(first, world, one)) for first in range(one)],
            "replica": [tuple(range(first, world, tensor)) for first in range(tensor)],
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
    def tensor_size(self) -> int:
        return len(self.tensor_ranks)

    @property
    def tensor_rank(self) -> int:
        return self.tensor_ranks.index(dist.get_rank())

    @property
    def context_size(self) -> int:
        return len(self.context_ranks)

    @property
    def context_rank(self) -> int:
        return self.context_ranks.index(dist.get_rank())

    @property
    def replica_size(self) -> int:
        return len(self.replica_ranks)

    @property
    def data_size(self) -> int:
        return len(self.data_ranks)

    @property
    def data_rank(self) -> int:
        return self.data_ranks.index(dist.get_rank())

    def collection(self) -> ProcessGroupCollection:
        """The same as megatron-core's modules want it."""
        groups = ProcessGroupCollection()
        groups.tp, groups.pp, groups.cp = self.tensor, self.alone, self.context
        groups.dp = groups.dp_cp = self.replica
        return groups


class DeepSpeedTopology:
    """What DeepSpeed asks of an `mpu`: its model-parallel group is our `tensor`, its data-parallel one `replica`.

    It must not have `initialize_sequence_parallel`: its presence makes DeepSpeed ignore tensor parallelism.
    """

    def __init__(self, groups: ParallelGroups) -> None:
        self._groups = groups

    def get_model_parallel_group(self) -> Any:
        return self._groups.tensor

    def get_model_parallel_rank(self) -> int:
        return self._groups.tensor_rank

    def get_model_parallel_world_size(self) -> int:
        return self._groups.tensor_size

    get_tensor_model_parallel_group = get_model_parallel_group
    get_tensor_model_parallel_rank = get_model_parallel_rank
    get_tensor_model_parallel_world_size = get_model_parallel_world_size

    def get_tensor_model_parallel_src_rank(self) -> int:
        return self._groups.tensor_ranks[0]

    def get_data_parallel_group(self) -> Any:
        return self._groups.replica

    def get_data_parallel_group_ranks(self) -> list[int]:
        return list(self._groups.replica_ranks)

    def get_data_parallel_rank(self) -> int:
        return self._groups.replica_ranks.index(dist.get_rank())

    def get_data_parallel_world_size(self) -> int:
        return self._groups.replica_size

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


def everyone_agrees(problem: str | None) -> None:
    """Raises ValueError on all ranks when one of them has a problem (the first one's), so that none waits on."""
    problems: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, problem)
    found = next((p for p in problems if p), None)
    if found:
        raise ValueError(found)
