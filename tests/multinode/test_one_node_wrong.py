"""What is wrong for some ranks only is said by them, once a node: they may not include rank 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_iberis.data.token_files.reader import TokenFile
from tests.conftest import Corpus
from tests.support.processes import ROOT, Launched
from tests.support.runs import words
from tests.support.token_files import TokenFileWriter

SCRIPT = """
import os, sys
if os.environ["LOCAL_RANK"] == "1":
    sys.argv += {more!r}
from megatron_iberis.stages.launch import launch
launch("pretrain", "demo")
"""


def start(overrides: list[str], rank: int) -> subprocess.Popen[str]:
    """A rank of the second of two nodes with two ranks each."""
    places = {"RANK": str(rank), "LOCAL_RANK": str(rank - 2), "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    return subprocess.Popen(
        [sys.executable, "examples/demo.sh", *overrides],
        cwd=ROOT,
        env={**os.environ, **places, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_token_file_missing_on_the_second_node_is_named_by_one_of_its_ranks(tmp_path: Path, corpus: Corpus) -> None:
    nothing = tmp_path / "nothing"
    ranks = [start(words(corpus, tmp_path / "run", data__train=str(nothing)), rank) for rank in (2, 3)]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert sorted(map(len, said))[0] == 0
    assert "".join(said).startswith(f"error: data.train = {nothing}: there is no {nothing}.idx")


def launch(folder: Path, corpus: Corpus, **settings: str) -> tuple[int, str]:
    """Two ranks under deepspeed, of which rank 1 has these settings too; the exit code and what was said."""
    more = [f"--{name.replace('__', '.')}={value}" for name, value in settings.items()]
    script = folder / "start.py"
    script.write_text(SCRIPT.format(more=more))
    with Launched(2, words(corpus, folder / "run", evaluation__every="0"), str(script)) as run:
        code, said = run.wait(180)
        assert run.left() == []
    return code, said


def test_a_mistake_of_rank_1_alone_is_said_once(tmp_path: Path, corpus: Corpus) -> None:
    code, said = launch(tmp_path, corpus, data__train=str(tmp_path / "nothing"))
    assert code == 2
    assert said.startswith(f"error: data.train = {tmp_path / 'nothing'}: there is no ")
    assert said.count("\n") == 1


@pytest.mark.full
def test_a_token_that_rank_1_alone_meets_while_training_is_said_once(tmp_path: Path, corpus: Corpus) -> None:
    ids = TokenFile(corpus.train).tokens(0, 20_000).copy()
    ids[5_000:] = 999
    with TokenFileWriter(tmp_path / "other", 1000) as writer:
        writer.add_document(ids)
    code, said = launch(tmp_path, corpus, data__train=str(tmp_path / "other"))
    lines = said.splitlines()
    assert code == 2, said
    assert [line for line in lines if line.startswith("error")] == [
        f"error: {tmp_path / 'other'}.bin holds token 999 and the model knows 600: train with the tokenizer that the "
        "token file was made with."
    ]
    assert "Traceback" not in said
