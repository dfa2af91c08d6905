"""`make demo` on a user's text: a single book will do, and changed text is not served from older text's files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from examples import demo
from examples.speedrun.running import Speedrun
from megatron_iberis.command import run
from megatron_iberis.data.token_files.reader import TokenFile


def a_book() -> str:
    """Lines of words of syllables, enough for the demo's vocabulary."""
    random, syllables = Random(0), [a + b for a in "bdfgklmnprstvz" for b in ("a", "en", "ir", "o", "ust", "ey")]
    words = ["".join(random.choices(syllables, k=random.randint(1, 4))) for _ in range(8000)]
    return "".join(" ".join(random.choices(words, k=10)) + ".\n" for _ in range(6000))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Runs the demo in tmp_path up to training, which is noted only; gives the commands of its stages."""
    root, seen = Path.cwd(), list[list[str]]()
    real = Speedrun._give

    def give(self: Speedrun, words: Sequence[str], held: object) -> int:
        seen.append(list(words))
        if words[1].startswith("data_tools/"):
            return real(self, [words[0], str(root / words[1]), *words[2:]], held)  # type: ignore[arg-type]
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setattr(Speedrun, "_give", give)
    monkeypatch.setattr(demo, "_tell", lambda folder, corpora: None)
    monkeypatch.setattr(sys, "argv", ["demo", "book.txt"])
    return seen


def named(commands: list[list[str]]) -> list[str]:
    return [words[1].split("/")[-1] for words in commands]


def test_a_single_text_is_cut_so_that_some_can_be_set_aside(commands: list[list[str]]) -> None:
    Path("book.txt").write_text(a_book())
    assert run(demo.main) == 0
    folder = next(Path("demo").iterdir())
    train, val = (TokenFile(folder / f"corpus{split}_text_document") for split in ("", "_val"))
    assert 0.01 < val.num_tokens / (train.num_tokens + val.num_tokens) < 0.15
    assert named(commands) == ["train_tokenizer.py", "preprocess.py", "demo.sh", "report", "convert"]

    commands.clear()
    assert run(demo.main) == 0
    assert commands == []  # all is there

    with Path("book.txt").open("a") as more:
        more.write("One more line.\n")
    assert demo._fingerprint(demo.find_inputs(["book.txt"])) != folder.name.removeprefix("data-")


def test_the_pieces_are_the_text() -> None:
    text = a_book() + "the end"
    pieces = list(demo.pieces_of(text))
    assert "".join(pieces) == text
    assert all(len(piece) < demo.PIECE + 200 for piece in pieces)
    assert list(demo.pieces_of("")) == []


def test_a_missing_text_is_one_sentence(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(demo.main) == 2
    assert capsys.readouterr().err == "error: there is no file or folder book.txt: check the name.\n"
    assert not os.path.exists("demo")
