"""`iberis data show`: what is printed as learned is what training learns, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from rich.cells import cell_len

from megatron_iberis.stages.conversation_inputs import open_rows
from megatron_iberis.stages.show import COLUMNS, show
from megatron_iberis.tokenizer import Tokenizer
from tests.conftest import Corpus
from tests.support.finetuning import conversations, recipe, said, words, write
from tests.support.typed import Typed

ROWS = [*conversations(12), said("two\nlines", "and <|assistant_end|>, which ends nothing. 東京\nです")]


@pytest.fixture
def overrides(corpus: Corpus, tmp_path: Path) -> list[str]:
    data = write(tmp_path / "rows.jsonl", ROWS)
    return words(corpus, tmp_path / "run", "", data, data__tokenizer=str(corpus.tokenizer))


def cells(text: str) -> list[str]:
    """A letter for each column."""
    return [letter for letter in text for _ in range(cell_len(letter))]


@pytest.mark.parametrize("name", ["sft_demo", "mid_demo"])
def test_the_marks_are_under_what_is_learned(
    overrides: list[str], corpus: Corpus, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    overrides = [word for word in overrides if name == "sft_demo" or "loss_on" not in word]
    resolved, tokenizer = recipe(overrides, name), Tokenizer.load(corpus.tokenizer)
    rows = open_rows(resolved, tokenizer)
    show(resolved, 0, rows.rows)
    lines = capsys.readouterr().out.split("\n")
    assert lines[0].split() == ["source", "read", "dropped", "cut", "no", "target", "tokens", "targets"]
    assert all(cell_len(line) <= COLUMNS for line in lines)
    marked = "".join(
        "".join(letter for letter, mark in zip(cells(above), below, strict=False) if mark == "^")
        for above, below in pairwise(lines)
        if set(below) == {"^"} or (set(below) == {"^", " "})
    )
    read = rows.read(0, rows.rows)
    learned = "".join(tokenizer.decode(row[row >= 0].tolist()) for row in read.targets)
    wide = "".join(letter * cell_len(letter) for letter in learned.replace("\n", "\\n"))
    if name == "sft_demo":
        assert marked == wide
        assert "which ends nothing" in marked
        assert "two" not in marked
    else:  # the bytes of a character may lie in two rows
        assert len(marked) > 0.9 * len(wide)


def test_a_terminal_has_colours_and_no_marks(overrides: list[str]) -> None:
    program = "import sys; from megatron_iberis.cli import main; sys.exit(main())"
    typed = Typed(["-c", program, "data", "show", "sft_demo", "-n", "1", *overrides], {})
    assert typed.end() == 0, typed.text
    assert "^^" not in typed.text
    assert b"\x1b[32m" in typed.output
    assert b"\x1b[2m" in typed.output
    assert "row 0:" in typed.text


def test_it_answers_without_torch_and_refuses_in_a_sentence(overrides: list[str]) -> None:
    program = (
        "import sys; from megatron_iberis.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(3 if 'torch' in sys.modules else code)"
    )

    def said_by(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    assert said_by("data", "show", "sft_demo", "-n", "1", *overrides) == (0, "")
    code, message = said_by("data", "show", "d20", *overrides, "--tasks.mixture=")
    assert (code, message.count("\n")) == (2, 1)
    assert "tasks.mixture is empty" in message
