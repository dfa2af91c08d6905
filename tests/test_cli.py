"""The `iberis` command: answers at once, and to a mistake with one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_iberis.cli import main
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import pretrain, words

IBERIS = str(Path(sys.executable).parent / "iberis")


def iberis(*arguments: str) -> str:
    done = subprocess.run([IBERIS, *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_help_answers_within_a_second_and_without_torch() -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        said = iberis("--help")
        seconds.append(time.perf_counter() - started)
    for command in ("generate", "chat", "recipe", "doctor", "convert"):
        assert command in said
    assert min(seconds) < 1.0
    code = (
        "import sys; from megatron_iberis.cli import main\n"
        "try: main(['--help'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(("name", "parameters"), [("d20", "542,035,200"), ("d12", "376,240,128")])
def test_recipe_tells_the_parameters(capsys: pytest.CaptureFixture[str], name: str, parameters: str) -> None:
    assert main(["recipe", name]) == 0
    assert f"# {parameters} parameters" in capsys.readouterr().out


def test_recipe_takes_settings_and_prints_what_can_be_given_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", "d20", "--model.depth", "26"]) == 0
    printed = capsys.readouterr().out
    assert "width = 1664" in printed
    (tmp_path / "own.toml").write_text(printed)
    assert main(["recipe", str(tmp_path / "own.toml")]) == 0
    assert capsys.readouterr().out == printed


def test_doctor_names_packages_tools_and_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"python", "machine", "torch", "deepspeed", "megatron-core", "device"} <= found.keys()
    assert "missing" not in found["torch"]


def test_generate_continues_the_prompt(one_rank: Ranks, tmp_path: Path, corpus: Corpus) -> None:
    bare = {
        "evaluation__every": "0",
        "evaluation__sample_every": "0",
        "evaluation__tokens": "64",
        "train__steps": "1",
    }
    assert one_rank(pretrain, words(corpus, tmp_path / "run", **bare)) == [0]
    arguments = ["generate", "--checkpoint", str(tmp_path / "run"), "--prompt", "月は", "--tokens", "8"]
    said = iberis(*arguments)
    assert said.startswith("月は")
    assert iberis(*arguments, "--temperature", "0") != "月は\n"
    arguments[4] = "The moon. " * 40
    refused = subprocess.run([IBERIS, *arguments], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "and the model's context 32" in refused.stderr
    assert iberis(*arguments, "--truncate", "left").startswith(arguments[4])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["recipe"], "name"),
        (["recipe", "d99"], "there is no recipe 'd99': use one of d12, d20, demo"),
        (["recipe", "d20", "--train.stepz", "3"], "did you mean train.steps?"),
        (["recipe", "d20", "--model.heads", "3"], "cannot be split into 3 heads"),
        (["doctor", "--fast"], "--fast"),
        (["generate", "--checkpoint", "x"], "--prompt"),
        (["generate", "--checkpoint", "x", "--prompt", "y", "--tokens", "many"], "'many'"),
        (["convert"], "FORM"),
        (["convert", "to-hf", "--input", "x"], "--output"),
        (["generate", "--checkpoint", "nowhere", "--prompt", "y"], "nowhere holds no checkpoint"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse's own way to end
        code = int(end.code or 0)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
