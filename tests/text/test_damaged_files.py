"""A file that is damaged for good costs no work: it can be left out, emptied or skipped, and the run is resumed."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.text import preprocess as preprocess_module
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.reading import decompression, streams

from .conftest import records, write_jsonl
from .test_resume import killed_at, outputs


@pytest.fixture
def damaged(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """damaged(names, ...) preprocesses them; a run of all three has stopped in the middle of b.txt.gz, cut off."""
    monkeypatch.setattr(preprocess_module, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(decompression, "BLOCK", 8000)
    monkeypatch.setattr(streams, "_PART", 4000)
    for name in "a", "c":
        write_jsonl(tmp_path / f"{name}.jsonl", [*records(30), {"text": name}, {"text": ""}])
    draw = random.Random(0)
    content = gzip.compress("".join(f"{draw.getrandbits(200):x}\n" for _ in range(8000)).encode())
    (tmp_path / "b.txt.gz").write_bytes(content[: len(content) // 2])

    def start(names: str = "abc", output: str = "out", **options: Any) -> Any:
        files = [str(tmp_path / {"b": "b.txt.gz"}.get(name, f"{name}.jsonl")) for name in names]
        options = {"val_fraction": 0.2, **options}
        return preprocess(PreprocessConfig(files, str(tokenizer_folder), str(tmp_path / output), **options))

    with pytest.raises(InputError, match=r"b\.txt\.gz is cut off .* --resume continues from there \(with --on-error"):
        start()
    assert (tmp_path / "out.partial/validation.bin").stat().st_size > 10_000  # parts of b.txt.gz are there
    return start


def test_leaving_a_damaged_file_out_loses_no_work(damaged: Any, tmp_path: Path) -> None:
    """Nor does anything remain of it: the bytes are those of a run of the others."""
    read = []
    with pytest.MonkeyPatch.context() as patch:
        original = decompression.decompressed
        patch.setattr(streams, "decompressed", lambda *a: read.append(a[2].name) or original(*a))
        damaged("ac", resume=True)
    assert read == ["c.jsonl"]
    damaged("ac", "whole")
    assert outputs(tmp_path, "out") == outputs(tmp_path, "whole")


def test_an_emptied_file_loses_no_work(damaged: Any, tmp_path: Path) -> None:
    (tmp_path / "b.txt.gz").write_bytes(b"")
    resumed = damaged(resume=True)
    assert resumed.notices == [f"nothing is in {tmp_path / 'b.txt.gz'}."]
    damaged(output="whole")
    assert outputs(tmp_path, "out") == outputs(tmp_path, "whole")


def test_a_damaged_file_can_be_skipped_and_is_counted(damaged: Any, tmp_path: Path, tokenizer_folder: Path) -> None:
    resumed = damaged(resume=True, on_error="skip")
    assert resumed.tally.rejected["unreadable file"].count == 1
    assert "b.txt.gz:" in resumed.tally.rejected["unreadable file"].first
    assert "is cut off before its end" in (tmp_path / "out.rejects.jsonl").read_text()
    for workers in 1, 2:
        damaged(output="whole", on_error="skip", workers=workers)
        assert outputs(tmp_path, "out").keys() == outputs(tmp_path, "whole").keys()
        for name in "out", "whole":
            TokenFile(tmp_path / f"{name}_text_document").verify()
        assert (tmp_path / "out_text_document.bin").read_bytes() == (
            tmp_path / "whole_text_document.bin"
        ).read_bytes()
    (tmp_path / "d.parquet").write_bytes(b"PAR1 nothing of the kind")
    (tmp_path / "e.json.gz").write_bytes(b"no gzip")
    (tmp_path / "f.jsonl").write_bytes("そう".encode("utf-16"))
    broken = [str(tmp_path / name) for name in ("a.jsonl", "d.parquet", "e.json.gz", "f.jsonl")]
    config = PreprocessConfig(broken, str(tokenizer_folder), str(tmp_path / "broken"), on_error="skip")
    summary = preprocess(config)
    assert (summary.tally.read, summary.tally.rejected["unreadable file"].count) == (35, 3)


def test_files_behind_those_that_were_read_may_be_others(damaged: Any, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "c.jsonl", tmp_path / "d.jsonl")
    for names in "ca", "", "dac":
        with pytest.raises(InputError, match=r"a\.jsonl was read before the stop, but is not number 1|no input file"):
            damaged(names, resume=True)
    damaged("adc", resume=True)
    damaged("adc", "whole")
    assert outputs(tmp_path, "out") == outputs(tmp_path, "whole")


def test_a_kill_while_a_file_is_taken_back_changes_no_byte(damaged: Any, tmp_path: Path) -> None:
    damaged("ac", "whole")
    shutil.copytree(tmp_path / "out.partial", tmp_path / "kept")
    for step in range(1, 12):
        shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
        shutil.copytree(tmp_path / "kept", tmp_path / "out.partial")
        with killed_at(step):
            damaged("ac", resume=True)
        damaged("ac", resume=True)
        assert outputs(tmp_path, "out") == outputs(tmp_path, "whole"), step
        for path in tmp_path.glob("out_*"):
            path.unlink()
