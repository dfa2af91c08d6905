"""Predicted step times against real ones: within 25 % after calibration, on a machine with nothing else to do."""

from __future__ import annotations

import os

import pytest

from benchmarks.plan_against_run import CASES, rows


@pytest.mark.full
def test_step_times_are_predicted_within_a_quarter_on_a_quiet_machine() -> None:
    if os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        pytest.skip("this machine has other work: times would say nothing")
    found = {name: measured / predicted for name, predicted, measured in rows()}
    assert len(found) == len(CASES)
    assert {name: ratio for name, ratio in found.items() if not 0.8 < ratio < 1.25} == {}
