"""Training gives the same tokenizer every time, with the pieces that were promised, written whole or not at all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_iberis.tokenizer import Tokenizer, train
from megatron_iberis.tokenizer.training import _chunks, _sample

from .conftest import VOCAB_SIZE, sample_texts


def pieces(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode([i]) for i in range(266, tokenizer.vocab_size)]


def test_training_again_gives_the_same_bytes(tokenizer: Tokenizer, output: Path) -> None:
    again = train(sample_texts(), VOCAB_SIZE, output, kind=tokenizer.manifest["kind"])
    assert again.fingerprint == tokenizer.fingerprint
    assert Tokenizer.load(output).manifest == tokenizer.manifest == again.manifest


def test_pieces_hold_two_digits_at_most_and_nothing_else_beside(tokenizer: Tokenizer) -> None:
    numbers = [p for p in pieces(tokenizer) if re.search("[0-9０-９]", p)]
    assert numbers
    assert all(re.fullmatch("[0-9０-９]{1,2}", p) for p in numbers)


def test_pieces_do_not_cross_lines_or_words(tokenizer: Tokenizer) -> None:
    for piece in pieces(tokenizer):
        assert re.fullmatch(r" *|[^ ][^ ]*| [^ ]+", piece), ascii(piece)
        assert re.fullmatch(r"[^\n]*\n*", piece), ascii(piece)


def test_runs_of_spaces_and_newlines_are_pieces(tokenizer: Tokenizer, output: Path) -> None:
    code = "    x = 1\n        y = 2\n" * 100
    trained = train([*sample_texts(), code], VOCAB_SIZE, output, kind=tokenizer.manifest["kind"])
    assert {"    ", "        ", "\n\n"} <= set(pieces(trained))


def test_the_largest_vocabulary_named_works(tokenizer: Tokenizer, output: Path) -> None:
    kind = tokenizer.manifest["kind"]
    with pytest.raises(ValueError, match="more than this text supports: use at most") as error:
        train(sample_texts(), 60_000, output, kind=kind)
    assert not output.exists()
    found = re.search(r"at most (\d+)", str(error.value))
    assert found is not None
    assert train(sample_texts(), int(found[1]), output, kind=kind).vocab_size == int(found[1])
    output.rename(output.with_name("largest"))
    with pytest.raises(ValueError, match="use at most"):
        train(sample_texts(), int(found[1]) + 1, output, kind=kind)


def test_the_smallest_vocabulary_named_works(tokenizer: Tokenizer, output: Path) -> None:
    kind = tokenizer.manifest["kind"]
    with pytest.raises(ValueError, match="too small for this text: use at least") as error:
        train(sample_texts(), 100, output, kind=kind)
    found = re.search(r"at least (\d+)", str(error.value))
    assert found is not None
    train(sample_texts(), int(found[1]), output, kind=kind)


def test_no_text_is_lost_in_cutting() -> None:
    long_line = "一二三 " * 5_000  # far more than SentencePiece takes as one sentence
    counts = {"documents": 0, "bytes": 0}
    chunks = list(_chunks([long_line + "\n\nend", "", "x\n" * 5_000], counts))
    assert b"".join(chunks).replace(b"\x1f", b"").decode() == long_line + "\n\nend" + "x\n" * 5_000
    assert counts == {"documents": 3, "bytes": len((long_line + "\n\nend" + "x\n" * 5_000).encode())}
    assert max(map(len, chunks)) < 20_000


@pytest.mark.parametrize("text", ["NUL \0 ", "\u2581", "\u2585", "\x1f", "<|bos|>", "\ufffe\ufdd0", "\ufffd"])
def test_odd_characters_do_not_disturb_training(text: str, output: Path) -> None:
    tokenizer = train([*sample_texts(), text * 50], 400, output)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_sample_is_even_bounded_and_repeatable() -> None:
    chunks = [f"{i:09}".encode() for i in range(10_000)]
    sample = _sample(chunks, 18_000)
    assert sample == sorted(sample) == _sample(iter(chunks), 18_000)
    assert len(sample) == 2_000
    assert 900 < sum(int(chunk) < 5_000 for chunk in sample) < 1_100
    assert _sample(chunks, 90_000) == chunks


def test_a_tokenizer_is_replaced_but_nothing_else(output: Path) -> None:
    train(sample_texts(), 400, output)
    train(sample_texts(), 500, output)
    assert Tokenizer.load(output).vocab_size == 500
    (output / "thesis.txt").write_text("ten years of work")
    with pytest.raises(ValueError, match=r"other things than a tokenizer \(such as thesis.txt\)"):
        train(sample_texts(), 400, output)
    assert (output / "thesis.txt").exists()
    assert [p.name for p in output.parent.iterdir()] == ["tokenizer"]


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_is_refused(texts: list[str], output: Path) -> None:
    with pytest.raises(ValueError, match="no text to train"):
        train(texts, 400, output)


def test_a_folder_without_or_with_another_model_is_refused(output: Path) -> None:
    with pytest.raises(ValueError, match="not a tokenizer folder"):
        Tokenizer.load(output)
    train(sample_texts(), 400, output)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["sha256"] == Tokenizer.load(output).fingerprint
    with (output / "tokenizer.model").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="another sha256"):
        Tokenizer.load(output)
    (output / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Tokenizer.load(output)


def test_importing_it_is_light() -> None:
    code = (
        "import sys, megatron_iberis.tokenizer; print([m for m in ('torch', 'rich', 'pyarrow') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
