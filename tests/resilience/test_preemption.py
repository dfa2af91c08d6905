"""A machine that is taken away: the step is finished, the run saved, and the same command resumes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from megatron_iberis.resilience import preemption
from tests.conftest import Corpus
from tests.support.processes import Launched
from tests.support.ranks import Ranks
from tests.support.runs import checkpoint_tensors, log, pretrain, words

LONG = {"evaluation__every": "0", "evaluation__sample_every": "0", "checkpoint__every": "0", "train__steps": "100000"}


def to_group(run: Launched) -> None:
    """As SLURM does: everybody gets the signal."""
    for process in (psutil.Process(run.runner.pid), run.launcher(), *run.ranks()):
        process.terminate()


def to_the_terminal(number: signal.Signals) -> Callable[[Launched], None]:
    """As a terminal does on Ctrl-C, or when it is closed: everybody in its group gets the signal."""
    return lambda run: os.killpg(run.runner.pid, number)


WAYS: dict[str, Callable[[Launched], None]] = {
    "one rank": lambda run: run.ranks()[1].terminate(),
    "everybody": to_group,
    "the deepspeed command": lambda run: run.runner.terminate(),
    "the process that started the ranks": lambda run: run.launcher().terminate(),
    "Ctrl-C": to_the_terminal(signal.SIGINT),
    "a closed terminal": to_the_terminal(signal.SIGHUP),
    "the process that started the ranks, by SIGKILL": lambda run: run.launcher().kill(),
}


OFTEN = "the deepspeed command"


@pytest.mark.parametrize("way", [pytest.param(w, marks=[] if w == OFTEN else [pytest.mark.full]) for w in WAYS])
def test_a_run_that_is_asked_to_stop_saves_its_last_step(tmp_path: Path, corpus: Corpus, way: str) -> None:
    with Launched(2, words(corpus, tmp_path / "run", parallel__tp="2", **LONG)) as run:
        ranks = run.ranks()
        run.wait_for_steps(tmp_path / "run", 3)
        WAYS[way](run)
        code, said = run.wait()
        assert code == 0 or way != "one rank", said  # the command's own end by a signal is DeepSpeed's to tell
        assert run.left() == []
        assert not any(rank.is_running() for rank in ranks)
    done = log(tmp_path / "run", "step")[-1]["step"]
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text().strip() == f"step-{done:08d}"
    notes = [entry["text"] for entry in log(tmp_path / "run", "note")]
    assert any(f"stopped after step {done}, as asked" in note for note in notes)
    assert "Traceback" not in said or way == "Ctrl-C"  # the deepspeed command's own


def stopped_by_a_signal_to_one_rank(overrides: list[str], at: int) -> int:
    """Runs on a rank: pretrains; rank 0 gets SIGTERM when it has done `at` steps."""
    from megatron_iberis.monitor.monitor import Monitor

    real = Monitor.step

    def step(self, progress):  # type: ignore[no-untyped-def]
        real(self, progress)
        if progress.step + 1 == at:
            signal.raise_signal(signal.SIGTERM)

    Monitor.step = step  # type: ignore[method-assign]
    try:
        return pretrain(overrides)
    finally:
        Monitor.step = real  # type: ignore[method-assign]


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(two_ranks: Ranks, tmp_path: Path, corpus: Corpus) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert two_ranks(pretrain, words(corpus, whole)) == [0, 0]
    assert two_ranks(stopped_by_a_signal_to_one_rank, words(corpus, stopped), 3) == [0, 0]
    assert len(log(stopped, "step")) == 4  # asked after step 3: known to all at the end of step 4
    assert two_ranks(pretrain, words(corpus, stopped, run__resume="true")) == [0, 0]
    one, other = (checkpoint_tensors(folder / "checkpoints" / "step-00000010") for folder in (whole, stopped))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert [e["loss"] for e in log(whole, "step")] == [e["loss"] for e in log(stopped, "step")]


def test_a_process_without_a_launcher_may_outlive_its_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert preemption.processes_above() == ()


CODE = """
import os, signal, sys, time
from megatron_iberis.resilience import preemption
preemption.ECHO = 0.2
before = [signal.getsignal(number) for number in preemption.SIGNALS]
with preemption.StopRequest() as stop:
    for number in map(int, sys.argv[1:]):
        assert not stop.asked()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert stop.asked()
        stop._signalled = False
        time.sleep(0.3)
assert [signal.getsignal(number) for number in preemption.SIGNALS] == before
"""


def signalled(*numbers: signal.Signals) -> int:
    """The exit code of a process that sends itself each signal twice at once, as an echo."""
    arguments = [str(int(number)) for number in numbers]
    return subprocess.run([sys.executable, "-c", CODE, *arguments], timeout=60, stderr=subprocess.PIPE).returncode


def test_each_signal_is_noted_and_a_second_ctrl_c_ends_the_process() -> None:
    assert signalled(signal.SIGTERM, signal.SIGHUP, signal.SIGINT) == 0
    assert signalled(signal.SIGINT, signal.SIGINT) == -signal.SIGINT
    assert signalled(signal.SIGTERM, signal.SIGTERM) == 0
