"""What is wrong on one node only is told there: its ranks may not include rank 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import Corpus
from tests.support.processes import ROOT
from tests.support.runs import words


def start(overrides: list[str], **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "examples/demo.sh", *overrides],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_token_file_missing_on_the_second_node_is_named_by_one_of_its_ranks(tmp_path: Path, corpus: Corpus) -> None:
    overrides = words(corpus, tmp_path / "run", data__train=str(tmp_path / "nothing"))
    code, said = start(overrides, WORLD_SIZE="4", RANK="2", LOCAL_RANK="0")
    assert code == 2
    assert said.startswith(f"error: there is no {tmp_path / 'nothing'}.idx")
    assert start(overrides, WORLD_SIZE="4", RANK="3", LOCAL_RANK="1") == (2, "")
