"""The loss does not know how the run is spread: golden trajectories at the layouts of two processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ranks import Ranks
from tests.training.golden_runs import check, run

WAYS: dict[str, dict[str, Any]] = {"tp2": {"tensor": 2}, "tp2-sequence": {"tensor": 2, "sequence": True}, "dp2": {}}
CASES = [("jp", "C_f32tab_f32ns_zeroinit", stage) for stage in (0, 1, 2, 3)]
CASES += [("en", "C_f32tab_f32ns", stage) for stage in (0, 3)]


@pytest.mark.parametrize(("variant", "name", "stage"), CASES)
@pytest.mark.parametrize("way", WAYS)
def test_losses_equal_golden_at_any_layout(two_ranks: Ranks, way: str, variant: str, name: str, stage: int) -> None:
    device_batch = 1 if way == "dp2" else 4  # of 4 rows a step: with DP 2 the gradient is accumulated, too
    found = two_ranks(run, "traj_base", variant, name, device_batch, {**WAYS[way], "zero_stage": stage}, 20)
    check(found, "traj_base", variant, name, 20, 2e-5)
