"""Small bilingual inputs, a tokenizer for them, and the command lines of data_tools as a user runs them."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.tokenizer import Tokenizer, train

ROOT = Path(__file__).parents[2]

SENTENCES = (
    "The lighthouse keeper counted nine ships before breakfast and wrote each name in a thick blue book.",
    "In spring the river carries branches, straw and sometimes a lost oar down to the old mill.",
    "\tIndented, with  two spaces   and three;\nthen a second line.\n\nAnd a paragraph.",
    "山の上の小屋には暖炉があり、旅人は靴を乾かしながら朝を待った。",
    "「明日は晴れるでしょうか。」と娘が尋ねると、船頭は西の空を見て首を振った。",
    "市場では魚と野菜と花が並び、売り手の声が屋根の下に響いていた。価格は120円から。",
)


def records(count: int) -> list[dict[str, Any]]:
    """`count` documents, all different, of 7 books; as in the real data, a book's parts differ behind " ("."""
    return [
        {
            "text": f"{i}: {SENTENCES[i % 6]}\n{SENTENCES[(i * 5 + 1) % 6] * (1 + i % 3)}",
            "source": f"books/{i % 7} (part {i})",
        }
        for i in range(count)
    ]


def write_jsonl(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train((record["text"] for record in records(200)), 420, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_folder)


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs a script of data_tools in tmp_path: command("preprocess", "--input", ...)."""

    def run(script: str, *arguments: object, before: str = "true") -> subprocess.CompletedProcess[str]:
        # `before` is shell, for limits; exec keeps the script the direct child.
        line = [
            "bash",
            "-c",
            f'{before} && exec "$@"',
            "-",
            sys.executable,
            str(ROOT / "data_tools" / f"{script}.py"),
        ]
        return subprocess.run(
            [*line, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """What `command` does, in this process: several times as quick, for what needs no process of its own."""

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        path = str(ROOT / "data_tools" / f"{script}.py")
        line = [path, *map(str, arguments)]
        terminated = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", line)
            try:
                with pytest.raises(SystemExit) as end:
                    runpy.run_path(path, run_name="__main__")
            finally:
                signal.signal(signal.SIGTERM, terminated)
        told = capsys.readouterr()
        return subprocess.CompletedProcess(line, int(end.value.code or 0), told.out, told.err)

    return run


def assert_user_error(run: subprocess.CompletedProcess[str], *words: str) -> None:
    """One sentence on stderr that holds `words`, exit code 2."""
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1, run.stderr
    for word in words:
        assert word in run.stderr
