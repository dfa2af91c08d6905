"""A run that is killed at random moments loses nothing: the short version of benchmarks/chaos.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.full
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one_bit_for_bit(tmp_path: Path) -> None:
    # seed 59: rank 1 while training, rank 0 while saving, the launcher while saving
    command = [sys.executable, "benchmarks/chaos.py", "--kills", "3", "--seed", "59", "--folder", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=600)
    finally:
        process.terminate()  # it ends what it has started
        process.wait()
    assert process.returncode == 0, said
    for kind in ("rank 1, training", "rank 0, saving", "launcher, saving"):
        assert kind in said
