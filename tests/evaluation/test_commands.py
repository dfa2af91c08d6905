"""`iberis eval`: results that can be read again, the same at any batch, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.cli import main
from megatron_iberis.tokenizer import Tokenizer


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def evaluate(*words: str | Path) -> int:
    return main(["eval", *map(str, words)])


def test_core_of_a_checkpoint_is_told_and_kept(
    checkpoints: dict[str, Path], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("base", "--checkpoint", checkpoints["base"], "--root", bundle, "--tasks", "core")
    assert evaluate(*words, "--output", tmp_path / "a", "--batch", "1") == 0
    said = capsys.readouterr().out
    assert "CORE v1, 4 of 22 tasks" in said
    assert max(map(len, [line for line in said.splitlines() if "/" not in line])) <= 80
    found = result(tmp_path / "a")
    assert set(found["tasks"]) == {"ferry", "notebook", "walnut", "shop"}
    for task in found["tasks"].values():
        assert {"n", "score", "standard_error", "chance", "centred", "at_chance", "shots"} <= task.keys()
    assert found["settings"]["step"] == 7
    # any batch and number of processes: the same marks
    assert evaluate(*words, "--output", tmp_path / "b", "--batch", "7") == 0
    assert result(tmp_path / "b")["tasks"] == found["tasks"]
    marks = [[(line["item"], line["score"], line["found"]) for line in lines(tmp_path / f, "ferry")] for f in "ab"]
    assert marks[0] == marks[1]
    # and marked again, without the model
    (tmp_path / "a" / "result.json").unlink()
    assert evaluate(*words, "--output", tmp_path / "a", "--score-only") == 0
    assert result(tmp_path / "a")["tasks"] == found["tasks"]


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.full
def test_several_processes_with_the_model_find_the_same(
    checkpoints: dict[str, Path], bundle: Path, tmp_path: Path
) -> None:
    words = ("base", "--checkpoint", checkpoints["base"], "--root", bundle, "--tasks", "core", "--device", "cpu")
    for processes in ("1", "2"):
        assert evaluate(*words, "--output", tmp_path / processes, "--processes", processes) == 0
    assert result(tmp_path / "1")["tasks"] == result(tmp_path / "2")["tasks"]


def test_texts_by_language_need_no_bundle(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"text": "朝の港では、漁師たちが網をたたみながら"}) + "\n")
    words = ("base", "--checkpoint", checkpoints["base"], "--text", f"ja={path}", "--output", tmp_path / "out")
    assert evaluate(*words) == 0
    assert result(tmp_path / "out")["tasks"]["text-ja"]["bits_per_byte"] > 0


def test_a_chat_model_is_asked_in_conversation(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "root" / "arc" / "ARC-Easy"
    folder.mkdir(parents=True)
    row = {"question": "Who?", "choices": {"text": ["he", "she"], "label": ["A", "B"]}, "answerKey": "B"}
    (folder / "test.jsonl").write_text(json.dumps(row) + "\n")
    words = ("chat", "--checkpoint", checkpoints["chat"], "--root", tmp_path / "root", "--tasks", "arc-easy")
    assert evaluate(*words, "--output", tmp_path / "out") == 0
    (line,) = lines(tmp_path / "out", "arc-easy")
    assert line["gold"] == "B"
    assert result(tmp_path / "out")["chat_core"]["missing"]


def test_what_cannot_be_evaluated_is_one_sentence(
    checkpoints: dict[str, Path], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("base", "--checkpoint", checkpoints["base"])
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((*base, "--root", bundle, "--tasks", "nonsense"), "there is no task 'nonsense' to evaluate: choose among"),
        ((*base, "--root", tmp_path, "--tasks", "core"), "there is no CORE bundle in"),
        (("chat", "--checkpoint", checkpoints["base"], "--tasks", "arc-easy"), "is a base model"),
        (("base", "--checkpoint", tmp_path), "holds no checkpoint"),
        ((*base, "--root", bundle, "--tasks", "ferry", "--batch", "0"), "--batch is 0"),
        ((*base, "--text", "no-language"), "names no language and path"),
        (("chat", "--checkpoint", checkpoints["chat"], "--root", tmp_path, "--tasks", "mmlu"), "the files of mmlu"),
    ]
    for words, sentence in cases:
        assert evaluate(*words) == 2
        said = capsys.readouterr()
        assert sentence in said.err
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1


def test_a_checkpoint_with_another_tokenizer_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from megatron_iberis.tokenizer import train
    from tests.tokenizer.conftest import sample_texts

    folder = tmp_path / "step-00000007"
    shutil.copytree(checkpoints["base"], folder)
    shutil.rmtree(folder / "tokenizer")
    train(sample_texts(), 520, folder / "tokenizer")
    assert Tokenizer.load(folder / "tokenizer").vocab_size > 512
    assert evaluate("base", "--checkpoint", folder, "--text", "ja=x") == 2
    assert "another" in capsys.readouterr().err


def test_an_evaluation_of_another_checkpoint_is_not_gone_on_with(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "She opened"}) + "\n")
    words = ("--text", f"en={tmp_path / 't.jsonl'}", "--output", tmp_path / "out")
    assert evaluate("base", "--checkpoint", checkpoints["base"], *words) == 0
    assert evaluate("base", "--checkpoint", checkpoints["chat"], *words) == 2
    assert "begun with another checkpoint" in capsys.readouterr().err
