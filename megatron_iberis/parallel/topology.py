"""The `mpu` object that DeepSpeed is given."""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed import ProcessGroup

from megatron_iberis.parallel.groups import ParallelGroups


class DeepSpeedTopology:
    """What DeepSpeed asks of an `mpu`: its model-parallel group is our `tp`, its data-parallel one `dp_cp`.

    It must not have `initialize_sequence_parallel`: its presence makes DeepSpeed ignore tensor parallelism.
    """

    def __init__(self, groups: ParallelGroups) -> None:
        self._groups = groups

    def get_model_parallel_group(self) -> ProcessGroup:
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

    def get_data_parallel_group(self) -> ProcessGroup:
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

    def get_pipeline_model_parallel_group(self) -> ProcessGroup:
        return self._groups.alone
