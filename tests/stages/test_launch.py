"""The commands that a user types: deepspeed FILE, bash FILE, several processes, a kill and a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import Corpus
from tests.support.processes import BIN, start
from tests.support.runs import checkpoint_tensors, log, words

FINAL = Path("checkpoints") / "step-00000010"


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    return said


def test_deepspeed_and_bash_start_the_same_run(tmp_path: Path, corpus: Corpus) -> None:
    both = [
        start(*command, "examples/demo.sh", *words(corpus, tmp_path / name))
        for name, command in (("deepspeed", [str(BIN / "deepspeed"), "--master_port", "29611"]), ("bash", ["bash"]))
    ]
    for process in both:
        finish(process)
    one, other = (checkpoint_tensors(tmp_path / name / FINAL) for name in ("deepspeed", "bash"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_with_tensor_parallelism_train_as_one_does(tmp_path: Path, corpus: Corpus) -> None:
    two = ["--num_gpus", "2", "--master_port", "29612"]
    split = words(corpus, tmp_path / "two", parallel__tp="2", train__dtype="fp32")
    one = words(corpus, tmp_path / "one", train__dtype="fp32")
    finish(start(str(BIN / "deepspeed"), *two, "examples/demo.sh", *split))
    finish(start(str(BIN / "deepspeed"), "--master_port", "29613", "examples/demo.sh", *one))
    losses = [[entry["loss"] for entry in log(tmp_path / name, "step")] for name in ("one", "two")]
    assert len(losses[0]) == 10
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) < 1e-4


def test_a_saved_recipe_starts_the_same_run(tmp_path: Path, corpus: Corpus) -> None:
    finish(start("bash", "examples/demo.sh", *words(corpus, tmp_path / "first", train__steps="2")))
    again = ["--recipe", str(tmp_path / "first" / "recipe.toml"), "--run.folder", str(tmp_path / "again")]
    finish(start("bash", "examples/demo.sh", *again))
    one, other = ([entry["loss"] for entry in log(tmp_path / name, "step")] for name in ("first", "again"))
    assert one == other


@pytest.mark.full  # test_chaos.py kills more
def test_a_killed_run_goes_on_where_it_had_saved(tmp_path: Path, corpus: Corpus) -> None:
    settings = {"train__steps": "40", "checkpoint__every": "5", "evaluation__every": "0"}
    undisturbed, killed = (words(corpus, tmp_path / name, **settings) for name in ("undisturbed", "killed"))
    reference = start(str(BIN / "deepspeed"), "--master_port", "29614", "examples/demo.sh", *undisturbed)
    process = start(str(BIN / "deepspeed"), "--master_port", "29615", "examples/demo.sh", *killed)
    wait_for(tmp_path / "killed" / "checkpoints" / "step-00000010")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "checkpoints" / "step-00000040").exists(), "killed too late to tell anything"
    command = [str(BIN / "deepspeed"), "--master_port", "29616", "examples/demo.sh", *killed, "--run.resume"]
    finish(start(*command))
    finish(reference)
    last = Path("checkpoints") / "step-00000040"
    one, other = (checkpoint_tensors(tmp_path / name / last) for name in ("undisturbed", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def wait_for(path: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)
