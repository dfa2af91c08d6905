"""A rank that stalls or dies is named, all processes end, and what each rank was doing can be read."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Corpus
from tests.support.processes import Launched
from tests.support.runs import words

LONG = {"evaluation__every": "0", "evaluation__sample_every": "0", "checkpoint__every": "0", "train__steps": "100000"}


# rank 0 keeps the store through which the ranks know of each other
@pytest.mark.parametrize("stalled", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_stalled_rank_is_named_and_all_end(tmp_path: Path, corpus: Corpus, stalled: int) -> None:
    folder = tmp_path / "run"
    with Launched(2, words(corpus, folder, parallel__timeout_minutes="0.25", **LONG)) as run:
        ranks = run.ranks()
        run.wait_for_steps(folder, 3)
        ranks[stalled].send_signal(signal.SIGSTOP)
        started = time.monotonic()
        code, said = run.wait()
        assert time.monotonic() - started < 40
        assert code != 0
        assert run.left() == []
    assert f"error: the run was ended: rank {stalled} gave no sign of life for" in said
    assert "Traceback" not in said
    for rank in (0, 1):
        text = (folder / "log" / f"rank-{rank:05d}.txt").read_text(errors="replace")
        assert text.startswith(f"rank {rank} on ")
        assert ": step " in text.splitlines()[0]
        assert "most recent call first" in text
        assert "trainer.py" in text


def test_a_dead_rank_ends_the_run_within_seconds(tmp_path: Path, corpus: Corpus) -> None:
    with Launched(2, words(corpus, tmp_path / "run", **LONG)) as run:
        ranks = run.ranks()
        run.wait_for_steps(tmp_path / "run", 3)
        ranks[1].kill()
        started = time.monotonic()
        code, said = run.wait()
        assert time.monotonic() - started < 15
        assert code != 0
        assert run.left() == []
    assert "error: the run was ended: rank 1 ended while the others went on" in said
    assert "Traceback" not in said
