"""Training gives the same tokenizer every time, with the pieces that were promised, written whole or not at all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from megatron_iberis.tokenizer import Tokenizer, train
from megatron_iberis.tokenizer.sentences import Counts, Reservoir, chunks

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


def test_japanese_pieces_end_where_a_phrase_does(tokenizer: Tokenizer) -> None:
    japanese = [p for p in pieces(tokenizer) if re.search("[ぁ-んァ-ヶ一-龠]", p)]
    assert japanese
    for piece in japanese:
        assert not re.search("[ぁ-ん](?<![おご])[ァ-ヶ一-龠]", piece), piece
        assert not re.search("[。、「」A-Za-z]", piece), piece


def test_no_text_is_lost_in_cutting() -> None:
    long_line = "一二三 " * 5_000  # far more than SentencePiece takes as one sentence
    counts = Counts()
    cut = list(chunks([long_line + "\n\nend", "", "x\n" * 5_000], counts))
    assert b"".join(cut).replace(b"\x1f", b"").decode() == long_line + "\n\nend" + "x\n" * 5_000
    assert counts == Counts(documents=3, bytes=len((long_line + "\n\nend" + "x\n" * 5_000).encode()))
    assert max(map(len, cut)) < 20_000


@pytest.mark.parametrize("text", ["NUL \0 ", "\u2581", "\u2585", "\x1f", "<|bos|>", "\ufffe\ufdd0", "\ufffd"])
def test_odd_characters_do_not_disturb_training(text: str, output: Path) -> None:
    tokenizer = train([*sample_texts(), text * 50], 400, output)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def sampled(chunks: Iterable[bytes], limit: int) -> list[bytes]:
    sample = Reservoir(limit)
    for chunk in chunks:
        sample.add(chunk)
    return sample.chunks()


def test_a_sample_is_even_bounded_and_repeatable() -> None:
    chunks = [f"{i:09}".encode() for i in range(10_000)]
    sample = sampled(chunks, 18_000)
    assert sample == sorted(sample) == sampled(iter(chunks), 18_000)
    assert len(sample) == 2_000
    assert 900 < sum(int(chunk) < 5_000 for chunk in sample) < 1_100
    assert sampled(chunks, 90_000) == chunks


def sources() -> dict[str, list[str]]:
    """Much Japanese, little English."""
    texts = sample_texts()
    return {"ja": [t for t in texts if "。" in t] * 5, "en": [t for t in texts if "。" not in t]}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_weights_are_the_shares_of_the_bytes(share: float, output: Path) -> None:
    weights = {"ja": 2 * share, "en": 2 * (1 - share)}  # only the proportions count
    training = train(sources(), 400, output, weights=weights).manifest["training"]
    used = {name: of_source["bytes_used"] for name, of_source in training["sources"].items()}
    assert used["ja"] / sum(used.values()) == pytest.approx(share, abs=0.02)
    assert training["weights"] == weights
    # Of one of the two everything is used, or almost: nothing is wasted, nothing repeated.
    unused = [1 - s["bytes_used"] / s["bytes"] for s in training["sources"].values()]
    assert min(unused) == pytest.approx(0, abs=0.02)
    assert min(unused) >= 0


def test_without_weights_all_text_that_fits_is_used(output: Path) -> None:
    training = train(sources(), 400, output).manifest["training"]
    assert training["bytes_used"] == training["bytes"] == sum(len("".join(t).encode()) for t in sources().values())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"ja": 1.0}, "'en' has no weight"),
        ({"ja": 1.0, "en": 1.0, "de": 1.0}, "no source 'de' to weigh: the sources are ja, en"),
        ({"ja": 0.0, "en": 1.0}, "weight of 'ja' is 0.0: give a number above 0"),
        ({"ja": float("nan"), "en": 1.0}, "weight of 'ja' is nan"),
        ({"ja": 5e-324, "en": 1.0}, "weight of 'ja' is 5e-324 of 1.0: that is no share"),
        ({"ja": 1e308, "en": 1e308}, "weight of 'ja' is 1e.308 of inf: that is no share"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: dict[str, float], message: str, output: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train(sources(), 400, output, weights=weights)


def test_a_tokenizer_is_replaced_but_nothing_else(output: Path) -> None:
    train(sample_texts(), 400, output)
    train(sample_texts(), 500, output)
    assert Tokenizer.load(output).vocab_size == 500
    (output / "thesis.txt").write_text("ten years of work")
    with pytest.raises(ValueError, match=r"other things than a tokenizer \(such as thesis.txt\)"):
        train(sample_texts(), 400, output)
    assert (output / "thesis.txt").exists()
    assert [p.name for p in output.parent.iterdir()] == ["tokenizer"]


def test_an_output_that_cannot_be_written_is_found_out_before_the_training(output: Path) -> None:
    def texts() -> Iterable[str]:
        raise AssertionError("the texts were read")
        yield ""

    output.write_text("a file")
    for folder in (output, output / "inner", Path("/proc/sys/tokenizer")):
        with pytest.raises(ValueError, match=r"choose another|check the path"):
            train(texts(), 400, folder)


def test_a_link_is_followed_and_stays(output: Path) -> None:
    output.symlink_to(output.parent / "disk" / "tokenizer")
    for size in 400, 500:
        train(sample_texts(), size, output)
        assert output.is_symlink()
        assert Tokenizer.load(output).vocab_size == size
    assert [path.name for path in (output.parent / "disk").iterdir()] == ["tokenizer"]


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
