"""`iberis chat` as a user types to it: in a real terminal of 80 columns, and in pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.serving.terminal.line_editor import history_file
from megatron_iberis.serving.terminal.session import Session
from megatron_iberis.serving.terminal.settings import Settings
from megatron_iberis.serving.terminal.slash_commands import NAMES, Commands, is_command
from megatron_iberis.serving.terminal.talk import visible
from tests.support.scripted import Scripted
from tests.support.tokenizers import small_tokenizer
from tests.support.typed import ROOT, Typed

LONG = "この答えはとても長いので、" * 40
CTRL_C, CTRL_D, ALT_ENTER, UP = "\x03", "\x04", "\x1b\r", "\x1b[A"

Start = Callable[..., Typed]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat") / "tokenizer"
    small_tokenizer().save(folder)
    return folder


def arguments(folder: Path, given: dict[str, Any]) -> list[str]:
    return ["-m", "tests.support.scripted", str(folder), json.dumps(given)]


@pytest.fixture
def start(tokenizer_folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts `iberis chat` with a model that gives these answers, and waits for its prompt."""
    started: list[Typed] = []

    def begin(*answers: list[str], **given: Any) -> Typed:
        given = {"answers": answers, "asked": str(tmp_path / "asked.json"), **given}
        typed = Typed(arguments(tokenizer_folder, given), {"HOME": str(tmp_path), "XDG_STATE_HOME": ""})
        started.append(typed)
        typed.ready()
        return typed

    yield begin
    for typed in started:
        typed.close()


def asked(folder: Path) -> list[str]:
    prompts: list[str] = json.loads((folder / "asked.json").read_text())["prompts"]
    return prompts


def test_a_talk_in_japanese_with_history(start: Start, tmp_path: Path) -> None:
    typed = start(["こんにちは、", "東京です。"], ["はい。"], system="丁寧に。")
    assert "small: a chat model" in typed.text
    typed.type("お元気ですか\r")
    typed.see("\nこんにちは、東京です。\n")
    typed.ready()
    typed.type("\x1b[200~一行目\n二行目\x1b[201~")  # pasted: it waits for Enter
    typed.see("二行目")
    typed.type("\r")
    typed.see("\nはい。\n")
    typed.ready()
    typed.type(f"a{ALT_ENTER}b\\\rc\r")
    typed.see("東京です。\n")
    typed.ready()
    typed.type(UP)
    typed.see("b\n")
    typed.type(f"{CTRL_C}{CTRL_D}")
    assert typed.end() == 0
    first = "<|bos|><|user_start|>丁寧に。\n\nお元気ですか<|user_end|><|assistant_start|>"
    second = (
        f"{first}こんにちは、東京です。<|assistant_end|><|user_start|>一行目\n二行目<|user_end|><|assistant_start|>"
    )
    third = f"{second}はい。<|assistant_end|><|user_start|>a\nb\nc<|user_end|><|assistant_start|>"
    assert asked(tmp_path) == [first, second, third]
    history = tmp_path / ".local/state/iberis/chat_history"
    assert "+お元気ですか" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_ends_the_answer_and_not_the_program(start: Start, tmp_path: Path) -> None:
    typed = start([LONG], ["はい。"], pause=0.02, context=4000)
    typed.type("話して\r")
    typed.see("この答えはとても長い")
    typed.type(f"{CTRL_C}{CTRL_C}")
    told = typed.see("\nstopped\n", 2)
    assert "\ufffd" not in told
    typed.ready(2)
    typed.type("次\r")
    typed.see("\nはい。\n")
    typed.ready()
    typed.type("/exit\r")
    assert typed.end() == 0
    assert json.loads((tmp_path / "asked.json").read_text())["closed"] == 1
    kept = (
        asked(tmp_path)[1]
        .split("<|assistant_start|>")[1]
        .removesuffix("<|assistant_end|><|user_start|>次<|user_end|>")
    )
    assert LONG.startswith(kept)
    assert 5 < len(kept) < len(LONG)


def test_ctrl_c_is_obeyed_while_the_model_reads_a_long_prompt(start: Start, tmp_path: Path) -> None:
    typed = start(["はい。"], first=1.5)
    typed.type("質問\r")
    time.sleep(0.3)
    pressed = time.monotonic()
    typed.type(CTRL_C)
    typed.see("stopped before the answer began", 1)
    assert time.monotonic() - pressed < 1
    typed.ready()
    typed.type("again\r")
    typed.see("\nはい。\n")
    typed.ready()
    typed.type(CTRL_D)
    assert typed.end() == 0
    assert asked(tmp_path)[1] == "<|bos|><|user_start|>again<|user_end|><|assistant_start|>"


def test_a_talk_is_saved_loaded_and_changed(start: Start, tmp_path: Path) -> None:
    typed = start(["one"], ["two"], ["three"], settings={"seed": "7"})
    path = tmp_path / "talk.json"

    def say(line: str, wanted: str) -> None:
        typed.type(f"{line}\r")
        typed.see(wanted)
        typed.ready()

    say("first", "\none\n")
    say(f"/save {path}", "2 messages saved")
    say("/reset", "forgotten")
    say(f"/load {path}", "> first\none\n2 messages loaded")
    say("/retry", "\ntwo\n")
    say("/stats", "seed 8")
    say("second", "\nthree\n")
    say("/undo", "messages left: 2")
    say("/temperature 0.25", "temperature 0.25")
    say("/temprature 1", "error: there is no command /temprature: did you mean /temperature?")
    say(f"/load {tmp_path}/none", "none: No such file or directory: check the name.")
    say("/usr/bin is a folder", "\none\n")
    typed.type(CTRL_D)
    assert typed.end() == 0
    assert json.loads(path.read_text()) == {
        "messages": [{"role": "user", "content": "first"}, {"role": "assistant", "content": "one"}]
    }
    again = "<|bos|><|user_start|>first<|user_end|><|assistant_start|>two<|assistant_end|><|user_start|>"
    assert asked(tmp_path)[3] == f"{again}/usr/bin is a folder<|user_end|><|assistant_start|>"


def test_a_base_model_continues_what_is_written(start: Start, tmp_path: Path) -> None:
    typed = start([" a time"], [" there was"], is_chat=False)
    assert "a base model" in typed.text
    typed.type("Once upon\r")
    typed.see("\n a time\n")
    typed.ready()
    typed.type("In the sea\r")
    typed.see("\n there was\n")
    typed.ready()
    typed.type("/system Be kind.\r")
    typed.see("error: this is a base model, which continues a text: it has no use for a system message.")
    typed.ready()
    typed.type(CTRL_D)
    assert typed.end() == 0
    assert asked(tmp_path) == ["<|bos|>Once upon", "<|bos|>In the sea"]


def test_what_is_typed_during_an_answer_waits_for_the_next_prompt(start: Start) -> None:
    typed = start(["ははは、" * 10], ["はい。"], pause=0.02)
    typed.type("a\r")
    typed.see("はは")
    typed.type("next\r")
    answer = typed.see("ははは、\n")
    assert "next" not in answer
    typed.see("next\nはい。\n")


def test_an_answer_without_room_is_said_to_be_cut(start: Start) -> None:
    typed = start(["one two three four five"], settings={"tokens": "6"}, context=40)
    typed.type("a\r")
    typed.see("cut after 6 tokens: /tokens")
    typed.type("/tokens 500\r/retry\r")
    typed.see("five\n")
    typed.type("b\r")
    typed.see("cut: the context of 40 tokens is full")
    typed.type("c\r")
    typed.see("context, for prompt and answer, 40: shorten it, begin anew (/reset), or have the oldest turns")
    typed.type("/truncate left\rc\r")
    typed.see("truncate left")
    typed.see("one two")


def piped(
    folder: Path, given: dict[str, Any], sent: bytes = b"", **settings: Any
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings.pop("environment", {})}
    command = [sys.executable, *arguments(folder, given)]
    return subprocess.run(command, input=sent, capture_output=True, cwd=ROOT, env=environment, timeout=60, **settings)


ANSWER = {"answers": [["ab\x1b[1m東", "です。"]]}


def test_a_pipe_gets_the_answer_and_nothing_else(tokenizer_folder: Path, tmp_path: Path) -> None:
    wanted = "ab\x1b[1m東です。\n".encode()
    path = tmp_path / "asked.json"
    done = piped(tokenizer_folder, {**ANSWER, "asked": str(path)}, "一行目\n二行目\n".encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted, b"")
    assert asked(tmp_path) == ["<|bos|><|user_start|>一行目\n二行目<|user_end|><|assistant_start|>"]
    done = piped(
        tokenizer_folder, {**ANSWER, "prompt": "質問", "asked": str(path)}, b"not read", environment={"LC_ALL": "C"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted, b"")
    assert asked(tmp_path) == ["<|bos|><|user_start|>質問<|user_end|><|assistant_start|>"]


@pytest.mark.parametrize(
    ("given", "sent", "said"),
    [
        ({}, b"", "standard input is empty"),
        ({}, b"\xff\xfe", "standard input is not UTF-8"),
        ({"context": 30}, b"long " * 40, "the prompt is "),
        ({"is_chat": False, "system": "a"}, b"b", "this is a base model"),
        ({"settings": {"top_p": "0"}}, b"b", "top_p is 0.0: it must be above 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tokenizer_folder: Path, given: dict[str, Any], sent: bytes, said: str
) -> None:
    done = piped(tokenizer_folder, {**ANSWER, **given}, sent)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"error: {said}")
    assert done.stderr.count(b"\n") == 1


def test_ctrl_c_ends_a_single_answer_with_130(tokenizer_folder: Path) -> None:
    given = {"answers": [[LONG]], "pause": 0.02, "context": 4000, "prompt": "a"}
    command = [sys.executable, *arguments(tokenizer_folder, given)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(12)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == b""


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert visible("a\x1b[31mb\x07\x9b\x7f\tc\r\n東") == "a␛[31mb␇\ufffd␡\tc\n東"


def test_commands_are_told_from_messages() -> None:
    for text in ("/help", "/top-k 5", "/system a\nb", "/Reset ", "/unknown"):
        assert is_command(text)
    for text in ("help", " /help", "/usr/bin", "//", "/ help", "/1", "/top-k5?"):
        assert not is_command(text)


def test_every_command_has_its_line_in_the_help() -> None:
    said: list[str] = []
    session = Session(Scripted(small_tokenizer(), [["a"]]), True, Settings())
    Commands(session, said.append, lambda request: None).run("/help")
    lines = said[0].splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert all(f"  /{name} " in said[0] for name in NAMES if name != "help")


def test_the_history_lies_in_the_users_folder_for_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert history_file() == Path("/state/iberis/chat_history")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert history_file() == Path("/home/someone/.local/state/iberis/chat_history")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # nobody's home
    assert history_file() is None
