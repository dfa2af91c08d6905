"""The speedrun: it goes on where it stopped, gives a command again that died, and prints what it would run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from examples.speedrun.plan import PLANS, load_plan
from examples.speedrun.record import NAME
from megatron_iberis.cli import main as iberis
from megatron_iberis.config import load_recipe
from megatron_iberis.errors import InputError

ABOUT = "one thing, told in so many words that they do not fit into a line of eighty columns"
PLAN = """
folder = "run"
ends = ["read {folder}/log"]

[values]
more = ""
last = "third"

[[stages]]
name = "first"
about = "@ABOUT@"
commands = ["python note.py {folder}/log first {*more}"]

[[stages]]
name = "second"
commands = ["python note.py {folder}/log second", "python note.py {folder}/log fails"]

[[stages]]
name = "extra"
optional = true
commands = ["python note.py {folder}/log extra"]

[[stages]]
name = "third"
makes = "{folder}/made"
commands = ["python note.py {folder}/log {last}"]
""".replace("@ABOUT@", ABOUT)
NOTE = """
import os, pathlib, sys, time
log, *words = sys.argv[1:]
with open(log, "a") as stream:
    stream.write(" ".join(words) + "\\n")
for word in words:
    order = pathlib.Path(word)
    if order.exists():
        what = order.read_text().split()
        if len(what) > 1:
            order.write_text(" ".join(what[1:]))
        else:
            order.unlink()
        if what[0] == "sleep":
            time.sleep(60)
        if what[0] == "kill":
            os.kill(os.getpid(), 9)
        sys.exit(int(what[0]))
"""
"""A command that notes its words, and does what a file of the name of one of them says: fail, die or wait."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text(PLAN)
    Path("note.py").write_text(NOTE)
    return tmp_path


def speedrun(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.speedrun", "plan.toml", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def noted() -> list[str]:
    log = Path("run/log")
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_all_stages_run_once_and_the_end_tells_what_each_took(folder: Path) -> None:
    done = speedrun("--set", "more='two words' b")
    assert done.returncode == 0, done.stderr
    assert noted() == ["first two words b", "second", "fails", "third"]
    table = done.stdout[done.stdout.index("All stages are done") :].splitlines()
    assert [line.split()[0] for line in table[2:6]] == ["first", "second", "third", "together"]
    assert done.stdout.endswith("read run/log\n")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    steps = json.loads(Path("run", NAME).read_text())["steps"]
    assert list(steps) == ["first", "second", "third"]
    assert all(step["seconds"] > 0 for step in steps.values())
    assert speedrun("--set", "more='two words' b").returncode == 0
    assert noted() == []
    assert speedrun().returncode == 0  # another command: it and what is made of its result
    assert noted() == ["first", "second", "fails", "third"]


def test_a_run_that_failed_goes_on_at_the_command_where_it_stopped(folder: Path) -> None:
    Path("fails").write_text("2")
    failed = speedrun()
    assert failed.returncode == 2
    assert "second is not done: the same command goes on from here." in failed.stdout
    assert noted() == ["first", "second", "fails"]
    assert speedrun().returncode == 0
    assert noted() == ["fails", "third"]


def test_a_command_that_died_is_given_again_and_not_for_ever(folder: Path) -> None:
    Path("fails").write_text("kill 1")
    done = speedrun()
    assert done.returncode == 0, done.stderr
    assert noted() == ["first", "second", "fails", "fails", "fails", "third"]
    Path("first").write_text("1 1 1 1 1")
    failed = speedrun("--from", "first", "--retries", "1")
    assert failed.returncode == 1
    assert noted() == ["first", "first"]


def test_sigterm_reaches_the_command_and_a_second_speedrun_is_refused_meanwhile(folder: Path) -> None:
    Path("fails").write_text("sleep")
    command = [sys.executable, "-m", "examples.speedrun", "plan.toml"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for("fails")
    other = speedrun()
    assert other.returncode == 2
    assert other.stderr.startswith("error: a speedrun, or a command that one started, is still running in run: wait")
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 143
    noted()
    assert speedrun().returncode == 0
    assert noted() == ["fails", "third"]


def test_a_command_whose_speedrun_was_killed_keeps_others_away(folder: Path) -> None:
    Path("fails").write_text("sleep")
    first = subprocess.Popen([sys.executable, "-m", "examples.speedrun", "plan.toml"], stdout=subprocess.DEVNULL)
    wait_for("fails")
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    first.kill()
    first.wait()
    try:
        assert speedrun().returncode == 2
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while speedrun().returncode != 0:
        assert time.monotonic() < deadline
    assert noted()[-2:] == ["fails", "third"]


def wait_for(line: str) -> None:
    deadline = time.monotonic() + 30
    while not (Path("run/log").exists() and line in Path("run/log").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_from_to_and_with_choose_stages(folder: Path) -> None:
    assert speedrun("--to", "first").returncode == 0
    assert noted() == ["first"]
    assert speedrun("--from", "second", "--with", "extra").returncode == 0
    assert noted() == ["second", "fails", "extra", "third"]
    assert speedrun("--from", "second", "--to", "second").returncode == 0
    assert noted() == ["second", "fails"], "done or not"


def test_what_a_stage_makes_is_not_made_twice(folder: Path) -> None:
    assert speedrun("--to", "second").returncode == 0
    Path("run/made").mkdir()
    assert speedrun().returncode == 0
    assert noted() == ["first", "second", "fails"]


def test_dry_run_prints_commands_that_a_shell_takes(folder: Path) -> None:
    done = speedrun("--dry-run", "--folder", "a folder", "--from", "first", "--to", "first")
    assert done.stdout == f"# first: {ABOUT}\npython note.py 'a folder/log' first\n\n"
    assert not Path("a folder").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "tokenizer"], "the plan plan has no stage 'tokenizer': choose among first, second"),
        (["--from", "third", "--to", "first"], "third comes after first in the plan plan: exchange --from and --to."),
        (["--set", "other=1"], "the plan plan.toml has no value 'other': it has more, last."),
        (["--set", "more"], "--set more gives no value: write it as --set NAME=VALUE."),
    ],
)
def test_a_mistake_is_one_sentence(folder: Path, words: Sequence[str], said: str) -> None:
    failed = speedrun(*words)
    assert failed.returncode == 2
    assert failed.stderr.startswith(f"error: {said}"), failed.stderr
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('folder = "run"', "", r"plan.toml names no folder"),
        ('name = "second"', 'name = "first"', r"each with a name of its own"),
        ('about = "one', 'abut = "one', r"stage 1 has 'abut', which stages have not"),
        ("{folder}/log first", "{fodler}/log first", r"stage 1: there is no value \{fodler\}"),
        ("[values]", "[values", r"is not valid TOML"),
    ],
)
def test_a_wrong_plan_is_one_sentence(folder: Path, before: str, after: str, said: str) -> None:
    Path("plan.toml").write_text(PLAN.replace(before, after, 1))
    with pytest.raises(InputError, match=said):
        load_plan("plan.toml")


def test_a_folder_of_another_plan_is_refused(folder: Path) -> None:
    assert speedrun("--to", "first").returncode == 0
    Path("plan.toml").rename("other.toml")
    failed = subprocess.run(
        [sys.executable, "-m", "examples.speedrun", "other.toml"], capture_output=True, text=True, timeout=60
    )
    assert failed.stderr == "error: run is the folder of a speedrun plan: name another one (--folder).\n"


@pytest.mark.parametrize("name", sorted(path.stem for path in PLANS.glob("*.toml")))
def test_every_command_of_the_plans_is_one_that_there_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for stage in load_plan(name).stages:
        for words in stage.commands:
            if words[0] == "iberis":
                with pytest.raises(SystemExit) as ended:
                    iberis([*words[1:3], "--help"] if words[1] in ("eval", "convert") else [words[1], "--help"])
                assert ended.value.code == 0
                options = capsys.readouterr().out
                assert all(word in options for word in words if word.startswith("--")), words
            elif words[0] == "bash":
                assert Path(words[1]).is_file()
                recipe = words[words.index("--recipe") + 1] if "--recipe" in words else _recipe_of(words[1])
                overrides = [word for word in words[2:] if word not in ("--recipe", recipe)]
                load_recipe(recipe, overrides)
            elif words[0] == "python" and words[1] != "-m":
                assert Path(words[1]).is_file()


def _recipe_of(script: str) -> str:
    last = Path(script).read_text().splitlines()[-1]
    return last.split('"')[-2]
