"""Process groups: tensor parallelism fastest, data parallelism with what is left, and what DeepSpeed asks of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.topology import DeepSpeedTopology
from tests.support.ranks import Ranks


def layout(tensor: int) -> dict[str, Any]:
    """Runs on a rank: what the groups say, and what sums over them give."""
    groups = ParallelGroups.create(tensor)
    sums = {}
    for kind in ("tp", "dp", "alone"):
        total = torch.tensor([10.0 ** dist.get_rank()])
        dist.all_reduce(total, group=getattr(groups, kind))
        sums[kind] = total.item()
    core, topology = groups.collection(), DeepSpeedTopology(groups)
    return {
        "tensor": (groups.tp_ranks, groups.tp_rank, groups.tp_size),
        "data": (groups.dp_ranks, groups.dp_rank, groups.dp_size),
        "sums": sums,
        "core": (core.tp.size(), core.pp.size(), core.cp.size(), core.dp.size(), core.dp_cp.size()),
        "model_parallel": (
            topology.get_model_parallel_world_size(),
            topology.get_model_parallel_rank(),
            dist.get_process_group_ranks(topology.get_model_parallel_group()),
        ),
        "tensor_model_parallel": (
            topology.get_tensor_model_parallel_world_size(),
            topology.get_tensor_model_parallel_rank(),
            topology.get_tensor_model_parallel_src_rank(),
        ),
        "data_parallel": (
            topology.get_data_parallel_world_size(),
            topology.get_data_parallel_rank(),
            topology.get_data_parallel_group_ranks(),
            dist.get_process_group_ranks(topology.get_data_parallel_group()),
        ),
        "pipeline": (
            topology.get_pipeline_model_parallel_world_size(),
            topology.get_pipeline_model_parallel_rank(),
            dist.get_process_group_ranks(topology.get_pipeline_model_parallel_group()),
        ),
        "switches_tensor_parallelism_off": hasattr(topology, "initialize_sequence_parallel"),
    }


def test_two_ranks_of_tensor_parallelism_share_one_model(two_ranks: Ranks) -> None:
    for rank, found in enumerate(two_ranks(layout, 2)):
        assert found["tensor"] == ((0, 1), rank, 2)
        assert found["data"] == ((rank,), 0, 1)
        assert found["sums"] == {"tp": 11.0, "dp": 10.0**rank, "alone": 10.0**rank}
        assert found["core"] == (2, 1, 1, 1, 1)


def test_two_ranks_of_data_parallelism_hold_a_model_each(two_ranks: Ranks) -> None:
    for rank, found in enumerate(two_ranks(layout, 1)):
        assert found["tensor"] == ((rank,), 0, 1)
        assert found["data"] == ((0, 1), rank, 2)
        assert found["sums"] == {"tp": 10.0**rank, "dp": 11.0, "alone": 10.0**rank}
        assert found["core"] == (1, 1, 1, 2, 2)


def test_deepspeed_gets_the_same_answers(two_ranks: Ranks) -> None:
    for rank, found in enumerate(two_ranks(layout, 2)):
        assert found["model_parallel"] == (2, rank, [0, 1])
        assert found["tensor_model_parallel"] == (2, rank, 0)
        assert found["data_parallel"] == (1, 0, [rank], [rank])
        assert found["pipeline"] == (1, 0, [rank])
        assert not found["switches_tensor_parallelism_off"]
    for rank, found in enumerate(two_ranks(layout, 1)):
        assert found["model_parallel"] == (1, 0, [rank])
        assert found["tensor_model_parallel"] == (1, 0, rank)
        assert found["data_parallel"] == (2, rank, [0, 1], [0, 1])


def refused(tensor: int) -> str:
    """Runs on a rank: the message of the refusal."""
    try:
        ParallelGroups.create(tensor)
    except ValueError as error:
        return str(error)
    return "not refused"


def test_processes_that_do_not_divide_are_answered_with_what_works(two_ranks: Ranks, one_rank: Ranks) -> None:
    for message in two_ranks(refused, 3):
        assert "2 processes cannot be split into tensor-parallel groups of 3" in message
        assert "start a multiple of 3" in message
        assert "set parallel.tp to a divisor of 2" in message
    assert "start a multiple of 2" in one_rank(refused, 2)[0]


@pytest.mark.parametrize("asked", [1, 2])
def test_groups_can_be_made_again_and_again(two_ranks: Ranks, asked: int) -> None:
    assert two_ranks(layout, asked) == two_ranks(layout, asked)
