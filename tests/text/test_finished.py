"""What is finished is not done again with --resume, and says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.preprocess import preprocess

from .conftest import Command, records, write_jsonl


def test_what_is_finished_is_not_done_again(
    in_process: Command, tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [*records(40), {"text": ""}, *records(2)])
    arguments = ("preprocess", "--input", "in.jsonl", "--tokenizer", tokenizer_folder, "--output-prefix", "out")
    options = ("--val-fraction", 0.2, "--dedup", "exact", "--resume")
    first = in_process(*arguments, *options)
    assert (first.returncode, "finished before" in first.stderr) == (0, False), first.stderr
    made = (tmp_path / "out_text_document.bin").stat().st_mtime_ns
    again = in_process(*arguments, *options, "--workers", 2)
    assert again.stderr == (
        "note: out_text_document, out_val_text_document: finished before with the same input and settings, "
        "nothing was done.\n"
    )
    told = [line for line in first.stdout.splitlines() if not line.startswith("time")]
    assert again.stdout.splitlines() == told
    assert (tmp_path / "out_text_document.bin").stat().st_mtime_ns == made
    monkeypatch.chdir(tmp_path)

    def is_done_again(**changed: Any) -> bool:
        settings = {"val_fraction": 0.2, "dedup": "exact", "resume": True, **changed}
        return not preprocess(
            PreprocessConfig(["in.jsonl"], str(tokenizer_folder), "out", **settings)
        ).finished_before

    assert not is_done_again()
    assert is_done_again(resume=False)
    assert is_done_again(min_chars=3)
    assert is_done_again(val_fraction=0.3, shuffle=1)
    assert not is_done_again(val_fraction=0.3, shuffle=1)
    os.utime(path, (1, 1))
    assert is_done_again(val_fraction=0.3, shuffle=1)
    (tmp_path / "out_text_document.bin").write_bytes(b"")
    assert is_done_again(val_fraction=0.3, shuffle=1)
