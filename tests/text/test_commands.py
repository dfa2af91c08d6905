"""The command lines: what they print and write, and one sentence and exit code 2 for bad input, with nothing left."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.tokenizer import Tokenizer

from .conftest import ROOT, Command, assert_user_error, records, write_jsonl


def leftovers(folder: Path) -> list[str]:
    """Everything in the folder but the inputs."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("in"))


def test_from_text_to_tokens(command: Command, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", records(300))
    trained = command("train_tokenizer", "--input", "in.jsonl", "--vocab-size", 400, "--output", "tok")
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr == ""  # SentencePiece keeps quiet
    assert "400 (bpe)" in trained.stdout
    assert Tokenizer.load(tmp_path / "tok").vocab_size == 400
    arguments = ("--input", "in.jsonl", "--tokenizer", "tok", "--output-prefix", "p/q", "--val-fraction", 0.1)
    done = command("preprocess", *arguments, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal
    assert "p/q_text_document.bin .idx .json: 2" in done.stdout
    assert "bytes a token" in done.stdout
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == [
        f"q{split}_text_document.{kind}" for split in ("", "_val") for kind in ("bin", "idx", "json")
    ]
    shown = command("inspect_dataset", "p/q")
    assert shown.returncode == 0, shown.stderr
    assert f"{TokenFile(tmp_path / 'p/q_text_document').num_tokens:,}" in shown.stdout
    first = command("inspect_dataset", "p/q", "--document", 0, "--tokenizer", "tok")
    assert first.stdout.startswith("<|bos|>0: The lighthouse keeper")
    assert_user_error(command("inspect_dataset", "p/q", "--document", 0), "--tokenizer")
    assert_user_error(command("inspect_dataset", "p/none"), "there is no p/none.idx")


BAD_INPUTS = [
    ("missing.jsonl", "there is no file or folder missing.jsonl"),
    ("none/*.jsonl", "no file of text matches none/*.jsonl"),
    ("in_empty.jsonl", "nothing is in in_empty.jsonl: fetch the texts again"),
    ("in_empty.parquet", "nothing is in in_empty.parquet: fetch the texts again"),
    ("in_nothing.jsonl.gz", "no document could be used of 0 in the input: there is nothing in its files"),
    ("in_array.json", "in_array.json is one JSON array, not JSON lines"),
    ("in_pretty.json", "in_pretty.json is one JSON object over many lines, not JSON lines"),
    ("in.csv", "in.csv is not of a kind that can be read: use .jsonl"),
    ("in_folder", "holds no text files"),
    ("in_blank.jsonl", "no document could be used of 0"),
    (
        "in_bad.jsonl",
        "no document could be used of 2 in the input: 1 invalid JSON (first: in_bad.jsonl:1), 1 missing",
    ),
]


@pytest.mark.parametrize(("name", "sentence"), BAD_INPUTS)
@pytest.mark.parametrize("script", ["train_tokenizer", "preprocess"])
def test_bad_input_is_one_sentence_and_leaves_nothing(
    script: str, name: str, sentence: str, in_process: Command, tmp_path: Path, tokenizer_folder: Path
) -> None:
    (tmp_path / "in_empty.jsonl").touch()
    (tmp_path / "in_empty.parquet").touch()
    (tmp_path / "in_nothing.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "in_array.json").write_text('[{"text": "a"}]')
    (tmp_path / "in_pretty.json").write_text('{\n  "text": "a"\n}\n')
    (tmp_path / "in.csv").write_text("a,b\n")
    (tmp_path / "in_folder").mkdir()
    (tmp_path / "in_blank.jsonl").write_text("\n \n")
    (tmp_path / "in_bad.jsonl").write_text('{"text"\n{"body": "a"}\n')
    rest = {
        "train_tokenizer": ("--vocab-size", 300, "--output", "tok"),
        "preprocess": ("--tokenizer", tokenizer_folder, "--output-prefix", "out"),
    }[script]
    assert_user_error(in_process(script, "--input", name, *rest), sentence)
    assert leftovers(tmp_path) == []


EMPTY_PATHS = [
    ("preprocess", ("--input", "", "--tokenizer", "tok", "--output-prefix", "out")),
    ("preprocess", ("--input", "in.jsonl", "--tokenizer", "", "--output-prefix", "out")),
    ("preprocess", ("--input", "in.jsonl", "--tokenizer", "tok", "--output-prefix", "")),
    ("train_tokenizer", ("--input", "in.jsonl", "", "--vocab-size", 300, "--output", "tok")),
    ("train_tokenizer", ("--input", "in.jsonl", "--vocab-size", 300, "--output", "")),
    ("train_tokenizer", ("--output", "tok", "--evaluate", "")),
    ("train_tokenizer", ("--output", "tok", "--evaluate", "a=in.jsonl", "--beside", "")),
    ("merge", ("--input", "", "--output-prefix", "out")),
    ("merge", ("--input", "a", "--output-prefix", "")),
    ("inspect_dataset", ("",)),
    ("inspect_dataset", ("a", "--tokenizer", "")),
    ("download", ("finedataset-13b-jpen", "--output", "")),
    ("import_tokenizer", ("", "--output", "tok")),
    ("import_tokenizer", ("in.pkl", "--output", "")),
]


@pytest.mark.parametrize(("script", "arguments"), EMPTY_PATHS)
def test_an_empty_path_is_refused(
    script: str, arguments: tuple[object, ...], in_process: Command, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "in.jsonl", records(5))
    refused = in_process(script, *arguments)
    assert refused.returncode == 2
    assert 'the path is empty ("")' in refused.stderr
    assert leftovers(tmp_path) == []


def test_malformed_lines_are_skipped_and_reported(command: Command, tmp_path: Path, tokenizer_folder: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", records(50))
    with path.open("ab") as file:
        file.write(b'{"text": 3}\n{"text": "\xff"}\n{"text": \n{"text": 4}\n')
    done = command("preprocess", "--input", "in.jsonl", "--tokenizer", tokenizer_folder, "--output-prefix", "out")
    assert done.returncode == 0
    assert done.stderr == (
        "skipped 4 of 54: 2 wrong type (first: in.jsonl:51 has 'text' of type int), "
        "1 invalid UTF-8 (first: in.jsonl:52), 1 invalid JSON (first: in.jsonl:53)\n"
    )
    assert TokenFile(tmp_path / "out_text_document").num_documents == 50


def test_settings_that_cannot_work_are_one_sentence(
    in_process: Command, tmp_path: Path, tokenizer_folder: Path
) -> None:
    write_jsonl(tmp_path / "in.jsonl", records(50))
    base = ("preprocess", "--input", "in.jsonl", "--output-prefix", "out", "--tokenizer", tokenizer_folder)
    assert_user_error(in_process(*base, "--tokenizer", "nowhere"), "nowhere is not a tokenizer folder")
    assert_user_error(in_process(*base, "--workers", 0), "use --workers 1 or more")
    assert_user_error(in_process(*base, "--val-fraction", 1.5), "--val-fraction must be")
    assert_user_error(in_process(*base, "--split-key", "source"), "give --val-fraction too")
    assert_user_error(in_process(*base, "--val-fraction", 1e-9), "fell into the validation split")
    assert_user_error(
        in_process(*base, "--val-fraction", 0.1, "--split-key", "author", "--workers", 2), "has no 'author'"
    )
    too_large = ("train_tokenizer", "--input", "in.jsonl", "--vocab-size", 50_000, "--output", "tok")
    assert_user_error(in_process(*too_large), "a vocabulary of 50000 is more than this text supports: use at most")
    assert_user_error(in_process(*too_large, "--vocab-size", -1), "a vocabulary of -1 is too small")
    assert_user_error(in_process(*too_large, "--sample-mb", 0), "a sample of 0 bytes is too small")
    (tmp_path / "in_file").write_text("x")
    assert_user_error(in_process(*too_large[:-1], "in_file"), "in_file is a file")
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    command: Command, tmp_path: Path, tokenizer_folder: Path
) -> None:
    # A limit on the size of files stands in for the full disk: the write fails in the same way.
    write_jsonl(tmp_path / "in.jsonl", records(2000))
    arguments = ("--input", "in.jsonl", "--tokenizer", tokenizer_folder, "--output-prefix", "out", "--workers", 2)
    full = command("preprocess", *arguments, before="ulimit -f 16")
    assert_user_error(full, "cannot write out.partial", "free space", "--resume")
    arguments = ("--input", "in.jsonl", "--vocab-size", 400, "--output", "tok")
    assert_user_error(command("train_tokenizer", *arguments, before="ulimit -f 4"), "cannot write tok")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_has_a_final_name_after_a_stop(stop: signal.Signals, tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write_jsonl(tmp_path / "in/a.jsonl", records(20_000))
    path.write_bytes(path.read_bytes() * 10)  # some seconds of work
    arguments = ["--tokenizer", tokenizer_folder, "--output-prefix", tmp_path / "out", "--workers", "2"]
    run = begin("--input", tmp_path / "in", *arguments)
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size for p in tmp_path.glob("out.partial/*.bin")):
        assert run.poll() is None, "it was over before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    if stop == signal.SIGINT:
        os.killpg(run.pid, stop)  # Ctrl-C reaches the workers too
    else:
        run.send_signal(stop)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[stop], errors
    assert "Traceback" not in errors
    assert {p.name for p in tmp_path.glob("out*")} <= {"out.partial"}
    if stop == signal.SIGINT:
        assert "--resume to continue from here" in errors
    while _is_alive(run.pid):  # the workers end too
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interrupt_while_workers_start_ends_all_of_it(tmp_path: Path, tokenizer_folder: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", records(20_000))
    path.write_bytes(path.read_bytes() * 10)
    arguments = ["--input", path, "--tokenizer", tokenizer_folder, "--workers", "4", "--output-prefix"]
    for report in range(6):
        run = begin(*arguments, tmp_path / f"out{report}")
        deadline = time.monotonic() + 60
        while not (tmp_path / f"out{report}.partial/plan.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(report * 0.035)
        os.killpg(run.pid, signal.SIGINT)
        _, errors = run.communicate(timeout=60)
        assert (run.returncode, "Traceback" in errors) == (130, False), errors


def begin(*arguments: str | Path) -> subprocess.Popen[str]:
    """preprocess.py as a terminal starts it: with a handler for Ctrl-C, even where these tests run without one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, ROOT / "data_tools/preprocess.py", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
