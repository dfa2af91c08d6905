"""How much text a token holds is counted right, beside any other tokenizer; what can't be read is a sentence."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
import tokenizers

from megatron_iberis.tokenizer import SentencePieceTokenizer, Tokenizer
from megatron_iberis.tokenizer.comparison import measure, open_contender

from .conftest import PARAGRAPHS, Command, sample_texts
from .test_nanochat import encoding


@pytest.fixture
def hugging_face(tmp_path: Path) -> Path:
    """A tokenizer.json that makes a token of each word."""
    model = tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_bytes_and_characters_per_token_are_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "ours")
    [found] = measure([open_contender(str(tmp_path / "ours"))], ["港の朝", "tide"])
    ids = tokenizer.encode("港の朝") + tokenizer.encode("tide")
    assert (found.documents, found.bytes, found.characters, found.tokens) == (2, 13, 7, len(ids))
    assert found.bytes_per_token == 13 / len(ids)
    assert found.characters_per_token == 7 / len(ids)


def test_every_kind_of_tokenizer_is_read(
    tokenizer: SentencePieceTokenizer, hugging_face: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.model").write_bytes(tokenizer._model)
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(encoding()))
    tokenizer.save(tmp_path / "ours")
    names = ["ours", "other.model", "tokenizer.json", "tokenizer.pkl"]
    contenders = [open_contender(str(tmp_path / name)) for name in names]
    ours, other, words, nanochat = measure(contenders, PARAGRAPHS)
    assert ours == other
    assert words.tokens == sum(len(text.split()) for text in PARAGRAPHS)
    assert nanochat.tokens == sum(len(encoding().encode_ordinary(text)) for text in PARAGRAPHS)
    assert contenders[0].vocab_size == contenders[1].vocab_size == tokenizer.vocab_size
    assert open_contender(str(tmp_path)).name == str(tmp_path)  # a folder with a tokenizer.json in it


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.model", b"nothing", "is not a SentencePiece model"),
        ("tokenizer.json", b"{}", "is not a tokenizer of Hugging Face's"),
        ("tokenizer.pkl", b"nothing", "is not a tokenizer that nanochat wrote"),
        ("notes.txt", b"nothing", "is not a tokenizer that can be read"),
    ],
)
def test_what_is_no_tokenizer_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_contender(str(tmp_path / name))
    with pytest.raises(
        ValueError, match=r"no file or folder missing, nor an encoding of tiktoken's: those are .*gpt2"
    ):
        open_contender("missing")


@pytest.mark.parametrize("package", ["tiktoken", "tokenizers"])
def test_a_missing_package_is_named(
    package: str, hugging_face: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(encoding()))
    monkeypatch.setitem(sys.modules, package, None)
    name = str(hugging_face) if package == "tokenizers" else "cl100k_base"
    with pytest.raises(ValueError, match=rf"the package {package} is needed: pip install"):
        open_contender(name)
    if package == "tiktoken":
        with pytest.raises(ValueError, match="needs the package tiktoken"):
            open_contender(str(tmp_path / "tokenizer.pkl"))


def test_the_command_trains_by_weight_and_evaluates(command: Command, tmp_path: Path) -> None:
    for name, is_japanese in (("ja", True), ("en", False)):
        texts = [t for t in sample_texts() if ("。" in t) == is_japanese]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    inputs = ["ja=ja.jsonl", "en=en.jsonl"]
    options = ["--weight", "ja=3", "en=1", "--vocab-size", 400, "--output", "ours"]
    run = command("train_tokenizer.py", "--input", *inputs, *options, "--evaluate", *inputs)
    assert run.returncode == 0, run.stderr
    [share] = [line.split()[-1] for line in run.stdout.splitlines() if line.startswith("  ja")]
    assert float(share.rstrip("%")) == pytest.approx(75, abs=2)
    lines = [line.split() for line in run.stdout.splitlines()]
    table = {line[0]: line[2:] for line in lines if len(line) == 6 and line[1] == "ours"}
    assert set(table) == {"ja", "en", "all"}
    tokenizer = Tokenizer.load(tmp_path / "ours")
    tokens = sum(len(tokenizer.encode(text)) for text in sample_texts())
    assert table["all"] == [
        "400",
        f"{sum(len(t.encode()) for t in sample_texts()) / tokens:.3f}",
        f"{sum(map(len, sample_texts())) / tokens:.3f}",
        f"{tokens:,}",
    ]
    again = command("train_tokenizer.py", "--output", "ours", "--evaluate", *inputs)
    assert again.stdout in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "t"], "nothing to do: give --input"),
        (["--output", "t", "--input", "a.txt"], "give --vocab-size"),
        (["--output", "t", "--evaluate", "a.txt"], "not a tokenizer"),
        (["--output", "t", "--input", "a.txt", "--vocab-size", "400", "--weight", "a=1"], "'a.txt' is not NAME=PATH"),
        (["--output", "t", "--input", "a=a.txt", "--vocab-size", "400", "--weight", "a"], "is not NAME=SHARE"),
        (
            ["--output", "t", "--input", "a=a.txt", "--vocab-size", "400", "--weight", "a=1", "a=2"],
            "--weight gives 'a' twice",
        ),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    arguments: list[str], message: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("text")
    run = command("train_tokenizer.py", *arguments)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert message in run.stderr
