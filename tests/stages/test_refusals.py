"""Bad input to a training stage: one sentence with the fix, before anything is allocated or overwritten."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Corpus
from tests.support.runs import words

THREE = {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SCRIPT = Path(__file__).parents[2] / "examples" / "demo.sh"


def refused(*arguments: str, **environment: str) -> str:
    """What the stage says when it is started with these words, having checked that it ends as it should."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_unknown_setting_is_named_with_a_suggestion() -> None:
    assert "did you mean train.steps?" in refused("--train.stepz", "3")


def test_tensor_parallel_size_that_does_not_divide_the_heads_lists_those_that_do() -> None:
    said = refused("--model.heads", "4", "--parallel.tp", "3")
    assert "4 heads cannot be split over tensor-parallel size 3: use 1, 2 or 4." in said


def test_processes_that_tensor_parallelism_does_not_divide_are_refused() -> None:
    said = refused("--parallel.tp", "2", **THREE)
    assert "3 processes cannot be split into tensor-parallel groups of 2" in said


def test_muon_without_zero_on_very_many_ranks_is_refused() -> None:
    many = {**THREE, "WORLD_SIZE": "32"}
    said = refused("--parallel.zero_stage", "0", "--train.dtype", "fp32", "--train.device_batch", "1", **many)
    assert "would send every matrix's whole update to each of 32 ranks: set parallel.zero_stage to 1" in said


def test_half_of_a_launchers_environment_is_refused() -> None:
    assert "RANK is set in the environment, as by a launcher, and MASTER_ADDR is not" in refused(RANK="0")
    assert "WORLD_SIZE in the environment is 'two'" in refused(**{**THREE, "WORLD_SIZE": "two"})


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, corpus: Corpus) -> None:
    loop = tmp_path / "tokenizer" / "manifest.json"  # even root can't read a link to itself
    loop.parent.mkdir()
    loop.symlink_to(loop)
    said = refused(*words(corpus, tmp_path / "run", data__tokenizer=str(loop.parent)))
    assert f"{loop}: Too many levels of symbolic links" in said


def test_batch_that_the_ranks_cannot_share_is_refused() -> None:
    said = refused("--train.batch_tokens", "4096", "--train.device_batch", "16", **THREE)
    assert "cannot be shared by 3 data-parallel ranks" in said


def test_missing_token_file_is_named(tmp_path: Path, corpus: Corpus) -> None:
    said = refused(*words(corpus, tmp_path / "run", data__train=str(tmp_path / "nothing")))
    assert f"{tmp_path / 'nothing'}.idx" in said


def test_token_file_of_another_tokenizer_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    from megatron_iberis.tokenizer import Tokenizer, train

    train(["another text, " * 50, "with other pieces in it " * 50], 275, tmp_path / "other")
    assert Tokenizer.load(tmp_path / "other").fingerprint != Tokenizer.load(corpus.tokenizer).fingerprint
    said = refused(*words(corpus, tmp_path / "run", data__tokenizer=str(tmp_path / "other")))
    assert "was made with another tokenizer" in said


def test_tokenizer_larger_than_the_model_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    said = refused(*words(corpus, tmp_path / "run", model__vocab_size="400"))
    assert "has 600 tokens and model.vocab_size is 400" in said


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_cut_off_token_file_is_named(tmp_path: Path, corpus: Corpus, suffix: str) -> None:
    for path in Path(corpus.train).parent.glob(f"{Path(corpus.train).name}.*"):
        shutil.copy(path, tmp_path / f"cut{path.suffix}")
    cut = tmp_path / f"cut{suffix}"
    os.truncate(cut, cut.stat().st_size - 100)
    said = refused(*words(corpus, tmp_path / "run", data__train=str(tmp_path / "cut")))
    assert f"cut{suffix}" in said


def test_context_beyond_the_data_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    said = refused(
        *words(corpus, tmp_path / "run", model__sequence_length="1048576", train__batch_tokens=str(2 << 20))
    )
    assert f"data.train = {corpus.train}" in said


def test_a_run_is_not_overwritten(tmp_path: Path, corpus: Corpus) -> None:
    (tmp_path / "run" / "checkpoints" / "step-00000005").mkdir(parents=True)
    said = refused(*words(corpus, tmp_path / "run"))
    assert "--run.resume" in said
    assert "--run.folder" in said


def test_a_finished_run_says_so_and_is_left_as_it_is(tmp_path: Path, corpus: Corpus) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text('{"files": {}}')
    command = [sys.executable, str(SCRIPT), *words(corpus, tmp_path / "run", train__steps="10"), "--run.resume"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"the run in {tmp_path / 'run'} is finished: 10 steps are done and train.steps is 10" in done.stdout
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["manifest.json"]


def test_refusal_comes_before_torch_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['x', '--train.steps', 'many']\n"
        "from megatron_iberis.stages.launch import launch\n"
        "try: launch('pretrain', 'demo')\n"
        "except SystemExit as end: sys.exit(0 if end.code == 2 and 'torch' not in sys.modules else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
