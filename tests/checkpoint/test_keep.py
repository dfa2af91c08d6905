"""Which checkpoints stay: keep_last, keep_every, and none is removed that someone reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_iberis.checkpoint import files
from megatron_iberis.checkpoint.verify import damage, describe, write_manifest
from megatron_iberis.config import CheckpointConfig
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import pretrain, words


def make(root: Path, *steps: int) -> None:
    for step in steps:
        partial = files.begin(root, step)
        (partial / "state.json").write_text(str(step))
        write_manifest(partial, {"state.json": describe(partial / "state.json")})
        files.commit(partial)


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [(0, 0, [10, 20, 30, 40]), (1, 0, [40]), (2, 0, [30, 40]), (1, 20, [20, 40]), (9, 0, [10, 20, 30, 40])],
)
def test_the_last_ones_and_the_chosen_steps_are_kept(
    tmp_path: Path, keep_last: int, keep_every: int, kept: list[int]
) -> None:
    make(tmp_path, 10, 20, 30, 40)
    files.remove_old(tmp_path, 40, keep_last, keep_every)
    assert files.steps_in(tmp_path) == kept
    assert list(tmp_path.glob("*.partial")) == []


def test_what_lies_after_the_step_that_a_run_was_taken_back_to_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, 10, 30, 40, 20)
    files.remove_old(tmp_path, 20, 1, 0)
    assert files.steps_in(tmp_path) == [20, 30, 40]


def test_a_checkpoint_that_is_read_is_not_removed(tmp_path: Path) -> None:
    make(tmp_path, 10, 20)
    held = files.hold(tmp_path / "step-00000010")
    files.remove_old(tmp_path, 20, 1, 0)
    assert damage(tmp_path / "step-00000010") is None
    held.close()
    files.remove_old(tmp_path, 20, 1, 0)
    assert files.steps_in(tmp_path) == [20]


def test_a_run_keeps_what_it_is_told_to(tmp_path: Path, corpus: Corpus, two_ranks: Ranks) -> None:
    settings = {"checkpoint__every": "2", "checkpoint__keep_last": "2", "checkpoint__keep_every": "4"}
    quiet = {"evaluation__every": "0", "evaluation__sample_every": "0"}
    assert two_ranks(pretrain, words(corpus, tmp_path / "run", **settings, **quiet)) == [0, 0]
    root = tmp_path / "run" / "checkpoints"
    assert files.steps_in(root) == [4, 8, 10]
    assert all(damage(folder) is None for folder in root.glob("step-*"))


@pytest.mark.parametrize(
    ("config", "fix"),
    [
        (CheckpointConfig(keep_every=2000), "set checkpoint.keep_last"),
        (CheckpointConfig(every=300, keep_last=2, keep_every=1000), "a multiple of checkpoint.every"),
        (CheckpointConfig(every=0, keep_last=2, keep_every=1000), "a multiple of checkpoint.every"),
    ],
)
def test_settings_that_would_keep_nothing_are_refused(config: CheckpointConfig, fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        config.check()
