"""The process groups of a run, and the `mpu` object that DeepSpeed is given.

* Ranks are laid out with tensor parallelism fastest: ranks 0 .. TP-1 split one copy of the model.
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


@dataclass(frozen=True)
class ParallelGroups:
    """This rank's groups. `tensor`: the ranks that share one copy; `data`: those with the same shard of it."""

    tensor: Any
    data: Any
    alone: Any
    """A group of this rank only, for the kinds of parallelism that are not used."""
    tensor_ranks: tuple[int, ...]
    data_ranks: tuple[int, ...]

    @classmethod
    def create(cls, tensor: int = 1) -> ParallelGroups:
        """Groups over all ranks of the default process group; every rank must call this.

        Raises ValueError when the number of processes is no multiple of the tensor-parallel size.
        """
        world, rank = dist.get_world_size(), dist.get_rank()
        if world % tensor:
            raise ValueError(
                f"{world} processes cannot be split into tensor-parallel groups of {tensor}: start a multiple of "
                f"{tensor} (deepspeed --num_gpus), or set parallel.tensor to a divisor of {world}."
            )
        tensor_sets = [tuple(range(first, first + tensor)) for first in range(0, world, tensor)]
        data_sets = [tuple(range(first, world, tensor)) for first in range(tensor)]
        own: dict[str, tuple[Any, tuple[int, ...]]] = {}
        for kind, sets in (
            ("tensor", tensor_sets),
            ("data", data_sets),
            ("alone", [(r,) for r in range(world)]),
        ):
            for ranks in sets:  # every rank takes part in making every group
                group = dist.new_group(list(ranks))
                if rank in ranks:
                    own[kind] = (group, ranks)
        return cls(own["tensor"][0], own["data"][0], own["alone"][0], own["tensor"][1], own["data"][1])

    @property
    def tensor_size(self) -> int:
        return len(self.tensor_ranks)

    @property
    def tensor_rank(self) -> int:
        return self.tensor_ranks.index(dist.get_rank())

    @property
    def data_size(self) -> int:
        return len(self.data_ranks)

    @property
    def data_rank(self) -> int:
        return self.data_ranks.index(dist.get_rank())

    def collection(self) -> ProcessGroupCollection:
        """The same as megatron-core's modules want it."""
        groups = ProcessGroupCollection()
        groups.tp, groups.pp, groups.cp = self.tensor, self.alone, self.alone
        groups.dp = groups.dp_cp = self.data
        return groups


class DeepSpeedTopology:
    """What DeepSpeed asks of an `mpu`: the model-parallel group is the tensor-parallel one.

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
        return self._groups.data

    def get_data_parallel_group_ranks(self) -> list[int]:
        return list(self._groups.data_ranks)

    def get_data_parallel_rank(self) -> int:
        return self._groups.data_rank

    def get_data_parallel_world_size(self) -> int:
        return self._groups.data_size

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


def ranks_on_this_node() -> int:
    """As torchrun (LOCAL_WORLD_SIZE) or DeepSpeed's launcher (LOCAL_SIZE) says it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)


def cores_of_this_node() -> int:
    """Cores that the launcher may use: a rank bound to some of them (numactl) would see only its own."""
    try:
        return len(os.sched_getaffinity(os.getppid()))
    except (AttributeError, OSError):  # not on Linux, or the launcher is gone
        return os.cpu_count() or 1


def start_process_group(timeout_minutes: float) -> torch.device:
    """Joins the run's process group (environment as a launcher sets it; alone without one); returns the device."""
    # megatron-core wants one queue, so that a gradient's all-reduce starts before the next matrix product.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    device = training_device()
    os.environ.setdefault("DS_ACCELERATOR", device.type)  # else DeepSpeed warns that it found no GPU
    timeout = datetime.timedelta(minutes=timeout_minutes)
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
