"""A checkpoint that is not what was written is named, and never used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_iberis.checkpoint import files, verify
from megatron_iberis.inference.load import load_model
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, words


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


DAMAGES = [cut, flip_one_bit, Path.unlink]


@pytest.fixture(scope="module")
def finished(one_rank: Ranks, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert one_rank(pretrain, words(corpus, folder, evaluation__every="0", evaluation__sample_every="0")) == [0]
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_every_file_of_a_checkpoint_is_in_its_manifest(run: Path) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        assert verify.damage(folder) is None
        for path in [p for p in folder.rglob("*") if p.is_file()]:
            kept = path.read_bytes()
            flip_one_bit(path)
            assert verify.damage(folder), f"a flipped bit in {path} went unseen"
            path.write_bytes(kept)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_by_file(run: Path, damage: Callable[[Path], None]) -> None:
    folder = run / "checkpoints" / "step-00000010"
    damage(folder / "optimizer-00000.safetensors")
    assert f"{folder / 'optimizer-00000.safetensors'}" in (verify.damage(folder) or "")


def test_a_look_at_the_sizes_sees_a_cut_file_and_not_a_flipped_bit(run: Path) -> None:
    folder = run / "checkpoints" / "step-00000010"
    flip_one_bit(folder / "model-00000.safetensors")
    assert verify.damage(folder, lambda names: ()) is None
    cut(folder / "model-00000.safetensors")
    assert "bytes" in (verify.damage(folder, lambda names: ()) or "")


@pytest.mark.parametrize(("processes", "damage"), [(1, flip_one_bit), (2, cut), (2, Path.unlink)])
def test_resume_goes_on_from_the_checkpoint_before_a_damaged_one(
    request: pytest.FixtureRequest, run: Path, corpus: Corpus, processes: int, damage: Callable[[Path], None]
) -> None:
    ranks: Ranks = request.getfixturevalue("one_rank" if processes == 1 else "two_ranks")
    damaged = run / "checkpoints" / "step-00000010" / "model-00000.safetensors"
    damage(damaged)
    settings = {"run__resume": "true", "evaluation__every": "0", "evaluation__sample_every": "0"}
    assert ranks(pretrain, words(corpus, run, **settings)) == [0] * processes
    notes = [entry["text"] for entry in log(run, "note")]
    assert any(str(damaged) in note and "step-00000005 is used instead" in note for note in notes)
    assert any("resumed after step 5" in note for note in notes)
    assert verify.damage(damaged.parent) is None, "the run has made it anew"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_model_is_loaded_from_the_checkpoint_before_a_damaged_one(
    run: Path, damage: Callable[[Path], None]
) -> None:
    damaged = run / "checkpoints" / "step-00000010" / "model-00000.safetensors"
    damage(damaged)
    assert load_model(run).step == 5
    with pytest.raises(ValueError, match=r"model-00000\.safetensors.*give another checkpoint"):
        load_model(damaged.parent)


def test_a_run_with_no_whole_checkpoint_is_refused_and_each_is_named(run: Path) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        manifest = (folder / files.MANIFEST).read_bytes()
        (folder / files.MANIFEST).write_bytes(manifest[: len(manifest) // 2])
    with pytest.raises(ValueError, match=r"step-00000010.*step-00000005.*--run\.folder"):
        verify.newest_whole(run / "checkpoints", verify.damage)


@pytest.mark.parametrize("said", ["", "\0\0\0", "step-", None])
def test_without_a_readable_latest_the_newest_is_taken(run: Path, said: str | None) -> None:
    latest = run / "checkpoints" / "latest"
    latest.unlink() if said is None else latest.write_text(said)
    found, _ = verify.newest_whole(run / "checkpoints", verify.damage)
    assert found == run / "checkpoints" / "step-00000010"


def test_latest_takes_a_run_back(run: Path) -> None:
    (run / "checkpoints" / "latest").write_text("step-00000005\n")
    found, problems = verify.newest_whole(run / "checkpoints", verify.damage)
    assert (found, problems) == (run / "checkpoints" / "step-00000005", [])


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert verify.newest_whole(tmp_path / "checkpoints", verify.damage) == (None, [])


def test_who_may_read_the_recipe_may_read_the_weights(run: Path) -> None:
    """safetensors itself writes files for their owner alone."""
    files = [path for path in (run / "checkpoints" / "step-00000010").iterdir() if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert len({path.stat().st_mode for path in files}) == 1
