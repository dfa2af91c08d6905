"""`iberis chat` with a real checkpoint: its recipe says whether it is talked to or continues a text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_iberis.cli import main
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import pretrain, words
from tests.support.typed import ROOT, Typed

BARE = {
    "evaluation__every": "0",
    "evaluation__sample_every": "0",
    "evaluation__tokens": "64",
    "train__steps": "1",
    "model__sequence_length": "128",
}
IBERIS = [sys.executable, "-c", "import sys; from megatron_iberis.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def checkpoints(one_rank: Ranks, tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for stage in ("base", "chat"):
        assert one_rank(pretrain, words(corpus, folder / stage, run__stage=stage, **BARE)) == [0]
    return {stage: folder / stage for stage in ("base", "chat")}


def test_a_prompt_is_answered_once_and_the_seed_decides(
    checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--checkpoint", str(checkpoints["chat"]), "--tokens", "12", "--system", "短く。", "--seed"]
    command = [*IBERIS, "chat", *options, "5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input="月は\n".encode(), capture_output=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) > 2
    for seed, same in ((5, True), (6, False)):
        assert main(["chat", *options, str(seed), "--prompt", "月は"]) == 0
        assert (capsys.readouterr().out.encode() == done.stdout) is same


def test_a_base_model_continues_the_prompt(checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--checkpoint", str(checkpoints["base"]), "--temperature", "0", "--prompt", "月は", "--tokens", "8"]
    assert main(["generate", *options]) == 0
    continued = capsys.readouterr().out
    assert main(["chat", *options]) == 0
    assert "月は" + capsys.readouterr().out == continued


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--system", "a", "--prompt", "b"], "error: this is a base model, which continues a text"),
        (["--prompt", "b " * 200], "error: the prompt is "),
        (["--prompt", "b", "--tokens", "0"], "error: tokens is 0"),
        (["--prompt", "b", "--truncate", "right"], "error: argument --truncate: invalid choice: 'right'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    try:
        code = main(["chat", "--checkpoint", str(checkpoints["base"]), *options])
    except SystemExit as end:  # argparse's own way to end
        code = int(end.code or 0)
    told = capsys.readouterr()
    assert (code, told.out, told.err.count("\n")) == (2, "", 1)
    assert told.err.startswith(said)


def test_the_terminal_talks_with_the_model(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    arguments = [*IBERIS[1:], "chat", "--checkpoint", str(checkpoints["chat"]), "--tokens", "8"]
    typed = Typed(arguments, {"HOME": str(tmp_path), "XDG_STATE_HOME": "", "PROMPT_TOOLKIT_NO_CPR": "1"})
    try:
        typed.ready(60)
        assert "step 1: a chat model" in typed.text
        typed.type("月は\r")
        typed.ready()
        typed.type("/stats\r")
        typed.see("prompt ")
        typed.see("answer ")
        typed.see(" of 128 tokens")
        typed.ready()
        typed.type("\x04")
        assert typed.end() == 0
    finally:
        typed.close()
