"""A checkpoint is complete or not there: full disks, killed saves; and what can't be gone on from is refused."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from megatron_iberis.checkpoint.files import FORMAT
from megatron_iberis.checkpoint.load import Checkpoint
from tests.checkpoint.test_checkpoint import BARE
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, stop_after, words

FIVE, TEN = "step-00000005", "step-00000010"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, one_rank: Ranks, corpus: Corpus) -> Path:
    """The folder of a run with checkpoints after steps 5 and 10."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert one_rank(pretrain, words(corpus, folder, **BARE)) == [0]
    return folder


@pytest.fixture
def stopped(tmp_path: Path, finished: Path) -> Path:
    """The same run, killed after the checkpoint of step 5."""
    stop_after(finished, tmp_path / "run", 5)
    return tmp_path / "run"


def digests(folder: Path) -> dict[str, str]:
    """What each file below a folder holds."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def check_only_five(run: Path, before: dict[str, str]) -> None:
    root = run / "checkpoints"
    assert sorted(path.name for path in root.iterdir()) == ["latest", FIVE]
    assert digests(root) == before
    assert newest(root) == FIVE


def newest(root: Path) -> str:
    return (root / "latest").read_text().strip()


# A full disk


def pretrain_with_limit(overrides: list[str], rank: int, limit: int) -> int:
    """Runs on a rank: pretraining during which one rank can't write files beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if dist.get_rank() == rank:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return pretrain(overrides)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_that_cannot_write_does_not_end_the_run(
    two_ranks: Ranks, corpus: Corpus, stopped: Path, rank: int
) -> None:
    before = digests(stopped / "checkpoints")
    overrides = words(corpus, stopped, **BARE, run__resume="true")
    assert two_ranks(pretrain_with_limit, overrides, rank, 100_000) == [1, 1]
    check_only_five(stopped, before)
    assert [entry["step"] for entry in log(stopped, "step")] == list(range(1, 11))
    notes = [entry["text"] for entry in log(stopped, "note")]
    assert any(
        f"step 10 was not saved: cannot write {stopped / 'checkpoints'} (File too large)" in note for note in notes
    )


@pytest.fixture
def small_disk(tmp_path: Path, finished: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint and a half."""
    sizes = {path: path.stat().st_size for path in finished.rglob("*") if path.is_file()}
    one = sum(size for path, size in sizes.items() if FIVE in path.parts)
    rest = sum(size for path, size in sizes.items() if "checkpoints" not in path.parts)
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or not mount or not umount:
        pytest.skip("mounting a small file system needs root")
    size = f"size={rest + one * 3 // 2}"
    if subprocess.run([mount, "-t", "tmpfs", "-o", size, "none", folder], capture_output=True).returncode:
        pytest.skip("this machine does not allow a mount")
    yield folder
    subprocess.run([umount, folder], check=True)


def test_full_disk_does_not_end_the_run(one_rank: Ranks, corpus: Corpus, stopped: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    shutil.copytree(stopped, run)
    before = digests(run / "checkpoints")
    assert one_rank(pretrain, words(corpus, run, **BARE, run__resume="true")) == [1]
    check_only_five(run, before)
    assert [entry["step"] for entry in log(run, "step")] == list(range(1, 11))
    notes = [entry["text"] for entry in log(run, "note")]
    said = f"step 10 was not saved: cannot write {run / 'checkpoints'}: the disk is full (0.0 GiB free): make room"
    assert sum(said in note for note in notes) == 2, "at once, and at the end"


# A killed save


def test_leftovers_of_a_killed_save_are_removed_by_the_next(one_rank: Ranks, corpus: Corpus, stopped: Path) -> None:
    root = stopped / "checkpoints"
    shutil.copytree(root / FIVE, root / "step-00000007.partial")
    (root / "latest.7-0f0f0f0f.tmp").write_text("step-000")
    assert newest(root) == FIVE
    assert one_rank(pretrain, words(corpus, stopped, **BARE, run__resume="true")) == [0]
    assert sorted(path.name for path in root.iterdir()) == ["latest", FIVE, TEN]
    assert newest(root) == TEN


def test_checkpoint_of_before_is_replaced(one_rank: Ranks, corpus: Corpus, stopped: Path) -> None:
    root = stopped / "checkpoints"
    (root / TEN).mkdir()
    (root / TEN / "model-00007.safetensors").write_text("of an earlier try")
    assert one_rank(pretrain, words(corpus, stopped, **BARE, run__resume="true")) == [0]
    assert sorted(path.name for path in root.iterdir()) == ["latest", FIVE, TEN]
    assert not (root / TEN / "model-00007.safetensors").exists()
    assert Checkpoint(root / TEN).step == 10


# What can't be gone on from


@pytest.mark.parametrize("kind", ["model", "optimizer"])
@pytest.mark.parametrize("harm", ["cut", "garbage"])
def test_damaged_tensors_are_named(one_rank: Ranks, corpus: Corpus, stopped: Path, kind: str, harm: str) -> None:
    path = next((stopped / "checkpoints" / FIVE).glob(f"{kind}-*.safetensors"))
    if harm == "cut":
        os.truncate(path, path.stat().st_size - 100)
    else:
        path.write_bytes(b"garbage " * 100)
    assert str(path) in refusal(one_rank, words(corpus, stopped, **BARE, run__resume="true"))


@pytest.mark.parametrize("text", ["", "{", "\0"])
def test_damaged_state_is_no_checkpoint(stopped: Path, text: str) -> None:
    folder = stopped / "checkpoints" / FIVE
    (folder / "state.json").write_text(text)
    with pytest.raises(ValueError, match=rf"{FIVE} is not a checkpoint: give a step-"):
        Checkpoint(folder)


def test_newer_format_asks_for_an_update(stopped: Path) -> None:
    folder = stopped / "checkpoints" / FIVE
    (folder / "state.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(
        ValueError, match=rf"format {FORMAT + 1}, this version reads {FORMAT}: update megatron_iberis"
    ):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("setting", "now", "before"),
    [
        ("model.width", "64", "32"),
        ("model.softcap", "10", "15.0"),
        ("train.seed", "7", "42"),
        ("train.batch_tokens", "512", "256"),
    ],
)
def test_another_model_or_order_of_data_is_refused_by_name(
    one_rank: Ranks, corpus: Corpus, stopped: Path, setting: str, now: str, before: str
) -> None:
    changed = {setting.replace(".", "__"): now}
    said = refusal(one_rank, words(corpus, stopped, **BARE, **changed, run__resume="true"))
    assert f"has {setting} = {before}, not {now}" in said
    assert "--run.folder" in said


def test_another_length_of_the_run_is_refused_where_megatrons_order_depends_on_it(
    one_rank: Ranks, corpus: Corpus, stopped: Path
) -> None:
    longer = {"train__steps": "12", "data__packing": "megatron", "run__resume": "true"}
    said = refusal(one_rank, words(corpus, stopped, **{**BARE, **longer}))
    assert "has train.steps = 10, not 12" in said


def pretrain_refused(overrides: list[str]) -> str:
    """Runs on a rank: what pretraining refuses to start for."""
    try:
        return f"ended with {pretrain(overrides)}"
    except ValueError as error:
        return str(error)


def refusal(ranks: Ranks, overrides: list[str]) -> str:
    said: str = ranks(pretrain_refused, overrides)[0]
    assert "\n" not in said
    return said
