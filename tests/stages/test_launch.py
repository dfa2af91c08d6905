"""The commands that a user types: deepspeed FILE, bash FILE, several processes, a kill and a restart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from megatron_iberis.config import load_recipe
from megatron_iberis.launcher import deepspeed_command, free_port
from tests.conftest import Corpus
from tests.support.finetuning import conversations, write
from tests.support.finetuning import words as finetuning
from tests.support.processes import BIN, start
from tests.support.runs import checkpoint_tensors, log, words

SCRIPT = "examples/demo.sh"
FINAL = Path("checkpoints") / "step-00000010"


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    return said


def test_deepspeed_and_bash_start_the_same_run(tmp_path: Path, corpus: Corpus) -> None:
    both = [
        start(*command, "examples/demo.sh", *words(corpus, tmp_path / name))
        for name, command in (
            ("deepspeed", [str(BIN / "deepspeed"), "--master_port", str(free_port())]),
            ("bash", ["bash"]),
        )
    ]
    for process in both:
        finish(process)
    one, other = (checkpoint_tensors(tmp_path / name / FINAL) for name in ("deepspeed", "bash"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.full
def test_a_port_in_use_is_one_sentence_for_deepspeed_and_nothing_to_bash(tmp_path: Path, corpus: Corpus) -> None:
    settings = words(corpus, tmp_path / "run", train__steps="1", evaluation__every="0", evaluation__sample_every="0")
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        refused = start(str(BIN / "deepspeed"), "--master_port", port, "examples/demo.sh", *settings)
        said, _ = refused.communicate(timeout=180)
        assert refused.returncode == 2, said
        assert f"error: port {port} of this machine, where the ranks are to meet, is in use: give another" in said
        assert "Traceback" not in said
    with suppress(OSError), socket.socket() as holder:  # which another run may hold just as well
        holder.bind(("", 29500))
        holder.listen()
        finish(start("bash", "examples/demo.sh", *settings))


@pytest.mark.full
def test_two_processes_with_tensor_parallelism_train_as_one_does(tmp_path: Path, corpus: Corpus) -> None:
    split = words(corpus, tmp_path / "two", parallel__tp="2", train__dtype="fp32")
    one = words(corpus, tmp_path / "one", train__dtype="fp32")
    finish(start(*deepspeed_command(SCRIPT, split, 2)))
    finish(start(*deepspeed_command(SCRIPT, one)))
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
    reference = start(*deepspeed_command(SCRIPT, undisturbed))
    process = start(*deepspeed_command(SCRIPT, killed))
    wait_for(tmp_path / "killed" / "checkpoints" / "step-00000010")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "checkpoints" / "step-00000040").exists(), "killed too late to tell anything"
    finish(start(*deepspeed_command(SCRIPT, [*killed, "--run.resume"])))
    finish(reference)
    last = Path("checkpoints") / "step-00000040"
    one, other = (checkpoint_tensors(tmp_path / name / last) for name in ("undisturbed", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def wait_for(path: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


@pytest.mark.full
def test_deepspeed_finetunes_what_it_has_pretrained(tmp_path: Path, corpus: Corpus) -> None:
    """examples/midtrain.sh and then sft.sh, each with nothing but the model before it and conversations."""
    short = {"train__steps": "2", "evaluation__every": "0", "evaluation__sample_every": "0"}
    finish(start(*deepspeed_command(SCRIPT, words(corpus, tmp_path / "base", **short))))
    data, before = write(tmp_path / "data.jsonl", conversations(30)), tmp_path / "base"
    for script, name, learned in (("examples/midtrain.sh", "mid", "all"), ("examples/sft.sh", "sft", "assistant")):
        settings = finetuning(corpus, tmp_path / name, before, data, train__dtype="bf16")
        told = finish(start(*deepspeed_command(script, settings, 2)))
        assert f"weights from {before}" in told
        assert "conversations/data.jsonl after step 0:  read 30  dropped" in told
        before = tmp_path / name
        recipe = load_recipe(before / "recipe.toml")
        assert (recipe.run.stage, recipe.tasks.loss_on) == ("chat", learned)
        assert len(log(before, "step")) == recipe.train.steps >= 3
    refused = start("bash", "examples/sft.sh", *finetuning(corpus, tmp_path / "x", tmp_path / "nothing", data))
    said, _ = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert said.startswith("error: there is no model in run.start_from")
