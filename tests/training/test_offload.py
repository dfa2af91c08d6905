"""Optimizer state offloaded to the CPU through the recipe's [deepspeed] table: the same training."""

from __future__ import annotations

import pytest

from tests.support.golden_runs import check, run
from tests.support.ranks import Ranks

OFFLOAD = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}


@pytest.mark.parametrize("stage", [2, 3])
def test_losses_equal_golden_with_the_optimizer_offloaded(two_ranks: Ranks, stage: int) -> None:
    case = ("traj_base", "jp", "C_f32tab_f32ns_zeroinit")
    found = two_ranks(run, *case, 1, {"zero_stage": stage, "deepspeed": OFFLOAD}, 20)
    check(found, *case, 20, 2e-5)
