"""Saving goes on while the run does: what is saved is the state at the step, and what goes wrong is told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron_iberis.checkpoint import files, save
from megatron_iberis.checkpoint.save import CheckpointWriter
from megatron_iberis.checkpoint.verify import damage
from megatron_iberis.config import Recipe
from tests.conftest import Corpus
from tests.support.golden_runs import recipe
from tests.support.ranks import Ranks, groups_of
from tests.support.runs import checkpoint_tensors, log, pretrain, words

LAYOUTS: list[tuple[int, dict[str, Any]]] = [
    (1, {"zero_stage": 0}),
    (1, {"zero_stage": 1}),
    (2, {"zero_stage": 0}),
    (2, {"zero_stage": 0, "tp": 2}),
    (2, {"zero_stage": 3}),
]


def writer_of(root: Path, wanted: Recipe) -> tuple[Any, CheckpointWriter]:
    from megatron_iberis.training.engine import Engine

    groups = groups_of(wanted.parallel.tp)
    engine = Engine(wanted, groups, torch.device("cpu"))
    return engine, CheckpointWriter(root, wanted, None, engine.state)


def saved_while_the_weights_change(root: Path, parallel: dict[str, Any]) -> None:
    """Runs on a rank: two saves; while each is written, every number of the run is overwritten."""
    engine, writer = writer_of(root, recipe("traj_base", "en", 1, **parallel))
    write = CheckpointWriter._write

    def slowly(self: CheckpointWriter, *args: Any) -> Any:
        time.sleep(0.3)
        return write(self, *args)

    CheckpointWriter._write = slowly  # type: ignore[method-assign]
    try:
        for step in (1, 2):
            for flat in engine.state.layout:
                flat.tensor.detach().fill_(float(step))
            waited = writer.save(step)
            assert (waited > 0) == (step == 2), "the second save waits for the first, and says so"
            for flat in engine.state.layout:
                flat.tensor.detach().fill_(-1.0)
        assert [outcome.step for outcome in writer.outcomes()] == [1]
        writer.finish()
        assert [(outcome.step, outcome.problem) for outcome in writer.outcomes()] == [(2, "")]
    finally:
        CheckpointWriter._write = write  # type: ignore[method-assign]
        writer.finish()
        engine.deepspeed.destroy()


@pytest.mark.parametrize(("processes", "parallel"), LAYOUTS)
def test_what_is_saved_is_the_state_at_the_step_whatever_the_run_does_meanwhile(
    request: pytest.FixtureRequest, tmp_path: Path, processes: int, parallel: dict[str, Any]
) -> None:
    ranks: Ranks = request.getfixturevalue("one_rank" if processes == 1 else "two_ranks")
    ranks(saved_while_the_weights_change, tmp_path, parallel)
    for step in (1, 2):
        assert damage(tmp_path / files.name_of(step)) is None
        weights = [t for n, t in checkpoint_tensors(tmp_path / files.name_of(step)).items() if n.endswith("weight")]
        assert weights
        assert all(bool((tensor == step).all()) for tensor in weights)


def pretrain_on_a_full_disk(overrides: list[str], broken_rank: int) -> int:
    """Runs on a rank: the second of three checkpoints can't be written by one rank."""
    import torch.distributed as dist

    written = save.save_tensors

    def full(tensors: Any, path: Path) -> None:
        if "step-00000004" in str(path) and dist.get_rank() == broken_rank:
            raise OSError(28, "No space left on device", str(path))
        written(tensors, path)

    save.save_tensors = full
    try:
        return pretrain(overrides)
    finally:
        save.save_tensors = written


@pytest.mark.parametrize("broken_rank", [0, 1])
def test_a_save_that_fails_is_told_of_and_the_run_goes_on(
    tmp_path: Path, corpus: Corpus, two_ranks: Ranks, broken_rank: int
) -> None:
    settings = {
        "checkpoint__every": "4",
        "train__steps": "24",
        "evaluation__every": "0",
        "evaluation__sample_every": "0",
    }
    run = tmp_path / "run"
    assert two_ranks(pretrain_on_a_full_disk, words(corpus, run, **settings), broken_rank) == [1, 1]
    assert files.steps_in(run / "checkpoints") == [8, 12, 16, 20, 24]
    assert all(damage(folder) is None for folder in (run / "checkpoints").glob("step-*"))
    notes = [(entry["step"], entry["text"]) for entry in log(run, "note") if "not saved" in entry["text"]]
    assert [text for _, text in notes] == [notes[0][1]] * 2, "at once and at the end"
    assert f"after step 4 was not saved: cannot write {run / 'checkpoints'}: the disk is full" in notes[0][1]
    assert notes[0][0] < 24


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, corpus: Corpus, one_rank: Ranks) -> None:
    run = tmp_path / "run"
    held = files.claim_folder(run / "checkpoints")
    with pytest.raises(AssertionError, match="another run is writing to"):
        one_rank(pretrain, words(corpus, run))
    held.close()
    assert one_rank(pretrain, words(corpus, run, train__steps="2", evaluation__every="0")) == [0]


def pretrain_with_a_folder_of_its_own(folders: list[list[str]]) -> int:
    """Runs on a rank: pretrains with the overrides of its number."""
    return pretrain(folders[dist.get_rank()])


def test_a_folder_that_the_nodes_do_not_share_is_refused_before_training(
    tmp_path: Path, corpus: Corpus, two_ranks: Ranks
) -> None:
    nodes = [tmp_path / "node0" / "run", tmp_path / "node1" / "run"]
    nodes[1].mkdir(parents=True)
    with pytest.raises(AssertionError, match=r"InputError: rank 1 on \S+ does not see the folder .*: put the run's"):
        two_ranks(pretrain_with_a_folder_of_its_own, [words(corpus, node) for node in nodes])
    assert not (nodes[0] / "log.jsonl").exists()
