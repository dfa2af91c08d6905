"""Training is upstream's, step by step: losses and gradient norms of the golden runs, in one process and two."""

from __future__ import annotations

import pytest

from tests.support.golden_runs import check, run
from tests.support.ranks import Ranks

CASES = [
    ("traj", "en", "C_f32tab_f32ns_zeroinit", 20),
    ("traj", "jp", "C_f32tab_f32ns_zeroinit", 20),
    ("traj", "en", "C_f32tab_f32ns", 20),
    ("traj", "jp", "C_f32tab_f32ns", 5),
    ("traj_base", "en", "C_f32tab_f32ns_zeroinit", 20),
    ("traj_base", "jp", "C_f32tab_f32ns_zeroinit", 20),
    ("traj_base", "en", "C_f32tab_f32ns", 20),
]


@pytest.mark.parametrize(("folder", "variant", "name", "steps"), CASES)
def test_losses_equal_golden_in_one_process(
    one_rank: Ranks, folder: str, variant: str, name: str, steps: int
) -> None:
    found = one_rank(run, folder, variant, name, 4, {"zero_stage": 0}, steps)
    check(found, folder, variant, name, steps, 1e-5)


@pytest.mark.parametrize(("folder", "variant", "name", "steps"), CASES)
def test_losses_equal_golden_at_dp2_zero1(two_ranks: Ranks, folder: str, variant: str, name: str, steps: int) -> None:
    found = two_ranks(run, folder, variant, name, 2, {"zero_stage": 1}, steps)
    check(found, folder, variant, name, steps, 1e-5)
