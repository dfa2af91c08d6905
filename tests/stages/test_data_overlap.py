"""`iberis data overlap`: a table of sources and sets, the rows that hold items, and the rest as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.cli import main

QUESTION = "A robe takes two bolts of blue fiber and half that much white fiber, so how many bolts does it take?"
PASSAGE = "梅雨とは、北海道と小笠原諸島を除く日本、朝鮮半島南部などにおいて見られる、雨の多い時期のことである。"


def write(path: Path, rows: list[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def conversation(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """GSM8K's test set, of one item, and JSQuAD's."""
    write(tmp_path / "sets/gsm8k/test.jsonl", [{"question": QUESTION, "answer": "It takes 3.\n#### 3"}])
    asked = {"id": "a", "question": "何のことか。", "answers": [{"text": "雨", "answer_start": 40}]}
    squad = {"data": [{"title": "梅雨", "paragraphs": [{"context": f"梅雨 [SEP] {PASSAGE}", "qas": [asked]}]}]}
    write(tmp_path / "sets/jglue/jsquad-v1.3/valid-v1.3.json", [squad])
    return tmp_path


@pytest.fixture
def chats(root: Path) -> str:
    near = QUESTION.replace("half", "twice")
    rows = [
        conversation("Hello!", "Hi."),
        conversation("Tell me.", f"Well: {QUESTION}"),
        conversation(PASSAGE, "雨。"),
    ]
    return write(root / "chats.jsonl", [*rows, conversation(near, "3"), conversation("今日は？", "はい。")])


def overlap(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["data", "overlap", *words]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_a_table_of_sources_and_sets(root: Path, chats: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = overlap(capsys, chats, "--root", str(root / "sets"))
    rows = [line.split() for line in table.splitlines()]
    assert ["gsm8k", "1", "0", "1"] in rows
    assert ["jsquad", "1", "0", "1"] in rows
    assert rows[4][:7] == ["source", "rows", "with", "items", "near", "copies", "only"]
    assert rows[5][1:] == ["5", "3", "1"]
    assert rows[7] == ["source", "gsm8k", "jsquad"]
    assert rows[8][1:] == ["2", "(1)", "1", "(1)"]
    assert max(map(len, table.splitlines())) <= 100


def test_rows_without_items_are_written_and_those_with_are_listed(
    root: Path, chats: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rest, listed = root / "rest.jsonl", root / "list.jsonl"
    words = ("--root", str(root / "sets"), "--drop-to", str(rest), "--list", str(listed))
    assert f"2 rows without any of them are in {rest}." in overlap(capsys, chats, *words)
    kept = [json.loads(line) for line in rest.read_text().splitlines()]
    assert kept == [conversation("Hello!", "Hi."), conversation("今日は？", "はい。")]
    found = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(Path(each["row"]).name, each["set"], each["how"]) for each in found] == [
        ("chats.jsonl:2", "gsm8k", "runs"),
        ("chats.jsonl:3", "jsquad", "runs"),
        ("chats.jsonl:4", "gsm8k", "near copy"),
    ]
    assert "0" in overlap(capsys, str(rest), "--root", str(root / "sets")).splitlines()[-1].split()


def test_documents_are_looked_through_and_kept_as_they_stand(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = {"text": "雨が降る。", "source": "a"}
    texts = write(root / "texts.jsonl", [clean, {"text": f"気候。{PASSAGE}夏。", "source": "b"}])
    rest = root / "rest.jsonl"
    overlap(capsys, "--text", texts, "--root", str(root / "sets"), "--drop-to", str(rest))
    assert [json.loads(line) for line in rest.read_text().splitlines()] == [clean]


def test_a_recipes_mixture_is_looked_through(root: Path, chats: str, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = ["--tasks.mixture.english.task", chats, "--tasks.mixture.english.rows", "2"]
    mixture += ["--tasks.mixture.english.settings.held_out", "0", "--tasks.mixture.japanese.epochs", "0"]
    table = overlap(capsys, "sft_demo", *mixture, "--root", str(root / "sets"), "--against", "gsm8k", "jsquad:valid")
    rows = [line.split() for line in table.splitlines()]
    assert ["english", "2", "1", "0"] in rows
    assert ["english", "1", "(1)"] in rows
    assert not any(row[:1] == ["japanese"] for row in rows)


def test_any_file_can_hold_the_items(root: Path, chats: str, capsys: pytest.CaptureFixture[str]) -> None:
    own = write(root / "own.jsonl", [{"query": QUESTION}])
    table = overlap(capsys, chats, "--against", f"{own}:query")
    assert [f"{root.name}/own.jsonl:query", "1", "0", "1"] in [line.split() for line in table.splitlines()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to look through was given"),
        (["none.jsonl"], "none.jsonl"),
        (["CHATS", "--text", "CHATS", "--drop-to", "rest.jsonl"], "rows of one kind"),
        (["CHATS", "--against", "gsm9k"], "there is no task 'gsm9k'"),
        (["CHATS", "--against", "arc-easy"], "arc-easy"),
        (["CHATS", "--against", "CHATS:question"], "has no 'question'"),
        (["CHATS", "--against", "identity"], "identity"),
        (["CHATS", "--drop-to", "CHATS/rest.jsonl"], "chats.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    root: Path,
    chats: str,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root)
    before = sorted(path.name for path in root.iterdir())
    error = overlap(capsys, *(word.replace("CHATS", chats) for word in words), "--root", str(root / "sets"), code=2)
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in root.iterdir()) == before


def test_the_tables_are_written_as_json(root: Path, chats: str, capsys: pytest.CaptureFixture[str]) -> None:
    overlap(capsys, chats, "--root", str(root / "sets"), "--output", str(root / "run/overlap.json"))
    told = json.loads((root / "run/overlap.json").read_bytes())
    (source,) = told["sources"]
    assert (source["name"], source["rows"], source["with_items"]) == (chats, 5, source["with_items"])
    assert {"name": "gsm8k", "items": 1, "too_short": 0, "found": 1} in told["sets"]
    assert {"source": chats, "set": "jsquad", "rows": 1, "items": 1} in told["both"]
