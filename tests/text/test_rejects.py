"""What can't be used is counted by kind, listed with where it stands, and adds up; or the run stops there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.encoding import EncodedBatch
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.reading.batch import LONGEST
from megatron_iberis.text.summary import Summary

from .conftest import ROOT, Command, assert_user_error, records, write_jsonl

FAULTS = {
    "invalid JSON": b'{"text": "cut of',
    "missing key": b'{"content": "a"}',
    "wrong type": b'{"text": ["a"]}',
    "invalid UTF-8": b'{"text": "\xe3\x81"}',
    "lone surrogate": b'{"text": "\\ud83d"}',
    "NUL character": b'{"text": "a\\u0000b"}',
    "empty": b'{"text": " \\n"}',
}


def rejects(prefix: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"{prefix}.rejects.jsonl").read_text().splitlines()]


def preprocess_here(tmp_path: Path, tokenizer_folder: Path, name: str, **options: Any) -> Any:
    return preprocess(
        PreprocessConfig([str(tmp_path / name)], str(tokenizer_folder), str(tmp_path / "out"), **options)
    )


def test_every_fault_is_listed_with_where_it_stands(tmp_path: Path, tokenizer_folder: Path) -> None:
    good = b'{"text": "good \xe6\x9c\xac"}\n'
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(good + fault + b"\r\n" for fault in FAULTS.values()))
    summary = preprocess_here(tmp_path, tokenizer_folder, "a.jsonl")
    listed = rejects(tmp_path / "out")
    assert [reject["reason"] for reject in listed] == list(FAULTS)
    content = path.read_bytes()
    for i, (reject, fault) in enumerate(zip(listed, FAULTS.values(), strict=True)):
        assert reject["file"] == str(path)
        assert reject["line"] == 2 * i + 2
        assert content[reject["offset"] :].startswith(fault)
    tally = summary.tally
    assert (tally.read, tally.empty, tally.num_rejected, summary.total.documents) == (14, 1, 6, 7)
    assert {kind: found.count for kind, found in tally.rejected.items()} == {k: 1 for k in FAULTS if k != "empty"}


def test_rows_are_listed_too(tmp_path: Path, tokenizer_folder: Path) -> None:
    texts = ["good", None, "", "a\0b", "good"]
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    summary = preprocess_here(tmp_path, tokenizer_folder, "a.parquet")
    assert [(reject["line"], reject["reason"]) for reject in rejects(tmp_path / "out")] == [
        (2, "wrong type"),
        (3, "empty"),
        (4, "NUL character"),
    ]
    assert summary.total.documents == 2


def test_no_list_where_all_is_well_and_none_of_an_earlier_run(tmp_path: Path, tokenizer_folder: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\nbad\n')
    preprocess_here(tmp_path, tokenizer_folder, "a.jsonl")
    assert len(rejects(tmp_path / "out")) == 1
    path.write_bytes(b'{"text": "good"}\n')
    preprocess_here(tmp_path, tokenizer_folder, "a.jsonl")
    assert sorted(p.name for p in tmp_path.glob("out*")) == [
        f"out_text_document.{kind}" for kind in ("bin", "idx", "json")
    ]


@pytest.mark.parametrize("kind", FAULTS)
def test_on_error_stop_names_the_first_fault(kind: str, tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + FAULTS[kind] + b"\nnothing\n")
    first = "invalid JSON: .*a.jsonl:3" if kind == "empty" else f"{kind}: .*a.jsonl:2"  # empty is no fault
    with pytest.raises(ValueError, match=first + ".*--on-error skip"):
        preprocess_here(tmp_path, tokenizer_folder, "a.jsonl", on_error="stop")
    assert not list(tmp_path.glob("out*"))


def test_min_chars_counts_characters_and_reconciles(tmp_path: Path, tokenizer_folder: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "本" * n} for n in range(20)])
    summary = preprocess_here(tmp_path, tokenizer_folder, "a.jsonl", min_chars=10)
    manifest = TokenFile(tmp_path / "out_text_document").manifest
    assert manifest is not None
    counts = manifest["input"]
    assert (counts["read"], counts["empty"], counts["too_short"], counts["written"]) == (20, 1, 9, {"train": 10})
    assert summary.tally.usable == 10


# Runs a script and prints the most memory that it has had.
PEAK = """
import re, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_line_of_200_mb_is_listed_and_never_held(workers: int, tmp_path: Path, tokenizer_folder: Path) -> None:
    good = json.dumps(records(1)[0]).encode() + b"\n"
    with zstandard.open(tmp_path / "in.jsonl.zst", "wb") as file:
        file.write(good + b'{"text": "')
        for _ in range(200):
            file.write(b"0" * 1_000_000)
        file.write(b'"}\n' + good)
    run = subprocess.run(
        [
            *(sys.executable, "-c", PEAK, ROOT / "data_tools/preprocess.py", "--input", tmp_path / "in.jsonl.zst"),
            *("--tokenizer", tokenizer_folder, "--output-prefix", tmp_path / "out", "--workers", str(workers)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert int(run.stdout.split()[-1]) < 300_000, "kB"
    (reject,) = rejects(tmp_path / "out")
    assert (reject["line"], reject["offset"], reject["reason"]) == (2, len(good), f"longer than {LONGEST >> 20} MiB")
    assert TokenFile(tmp_path / "out_text_document").num_documents == 2


def test_the_command_says_where_the_list_is(command: Command, tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "good"}\n{"\\ud800": 1}\n')
    arguments = ("preprocess", "--input", "in.jsonl", "--tokenizer", tokenizer_folder, "--output-prefix", "out")
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "out.rejects.jsonl" in done.stdout
    assert "1 skipped" in done.stdout
    assert_user_error(command(*arguments, "--on-error", "stop"), "missing key: in.jsonl:2")


def test_counts_that_do_not_reconcile_are_never_passed_over(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "a.jsonl", records(20))
    add = Summary.add

    def forgetful(summary: Summary, batch: EncodedBatch) -> None:
        batch.documents = batch.documents[1:]
        add(summary, batch)

    monkeypatch.setattr(Summary, "add", forgetful)
    with pytest.raises(RuntimeError, match="20 documents were read, but 19 written"):
        preprocess_here(tmp_path, tokenizer_folder, "a.jsonl")
    assert not list(tmp_path.glob("out_*"))
