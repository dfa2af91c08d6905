"""Folders and patterns: what they hold is read or named, links and odd names included."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import feather, parquet

from megatron_iberis.command import path_argument
from megatron_iberis.errors import InputError
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.reading.inputs import describe_empty, find_inputs
from megatron_iberis.text.reading.named_inputs import are_named, named_inputs

from .conftest import ROOT, Command, records, write_jsonl
from .test_reading import read


def found(*names: Path | str) -> tuple[list[str], list[str]]:
    """Names of the files found, and the notices."""
    notices: list[str] = []
    return [file.path.name for file in find_inputs([str(name) for name in names], notices)], notices


def test_linked_folders_are_read_once_and_loops_end(tmp_path: Path) -> None:
    for folder in "in", "in/deep", "disk":
        (tmp_path / folder).mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", records(2))
    write_jsonl(tmp_path / "disk/b.jsonl", records(3))
    (tmp_path / "in/deep/linked").symlink_to("../../disk")
    (tmp_path / "in/again").symlink_to("deep")
    (tmp_path / "in/deep/loop").symlink_to("..")
    (tmp_path / "disk/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/same.jsonl").symlink_to("a.jsonl")
    assert found(tmp_path / "in") == (["a.jsonl", "b.jsonl"], [])
    assert len(read(tmp_path / "in")[0]) == 5


@pytest.mark.parametrize("name", ["b.jsonl", "disk2", "README.md"])
def test_a_link_that_leads_nowhere_is_named(name: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", records(2))
    (tmp_path / name).symlink_to("/nowhere/at/all")
    for given in (tmp_path, tmp_path / name):
        with pytest.raises(InputError, match=f"{name} is a link to /nowhere/at/all, which cannot be reached"):
            find_inputs([str(given)])
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(name)
    with pytest.raises(InputError, match=f"{name} is a link to {name}, which cannot be reached"):
        find_inputs([str(tmp_path)])


# Finds inputs without root's right to read everything.
PLAIN_USER = """
import os, sys
from megatron_iberis.text.reading.inputs import find_inputs
if os.getuid() == 0:
    os.setuid(65534)
try:
    find_inputs(sys.argv[1:])
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
@pytest.mark.parametrize("given", ["in", "in/*/*.jsonl", "in/**/*.jsonl"])
def test_a_folder_without_rights_is_named(given: str, mode: int, tmp_path: Path) -> None:
    _assert_no_rights(tmp_path, given, "in/locked", mode)


@pytest.mark.parametrize("given", ["in", "in/locked/b.jsonl", "in/**/*.jsonl"])
def test_a_file_without_rights_is_named(given: str, tmp_path: Path) -> None:
    _assert_no_rights(tmp_path, given, "in/locked/b.jsonl", 0)


def _assert_no_rights(tmp_path: Path, given: str, locked: str, mode: int) -> None:
    (tmp_path / "in/locked").mkdir(parents=True)
    (tmp_path / "in/open").mkdir()
    write_jsonl(tmp_path / "in/open/a.jsonl", records(2))
    write_jsonl(tmp_path / "in/locked/b.jsonl", records(2))
    for folder in tmp_path, *tmp_path.parents[:2]:
        folder.chmod(0o755)
    (tmp_path / locked).chmod(mode)
    try:
        run = subprocess.run(
            [sys.executable, "-c", PLAIN_USER, given],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    finally:
        (tmp_path / locked).chmod(0o755)
    assert run.stdout == f"{locked} may not be read by this user: change its rights, or leave it out.\n", run.stderr


def test_json_and_ndjson_are_read_as_json_lines(tmp_path: Path) -> None:
    lines = write_jsonl(tmp_path / "a.json", records(3)).read_bytes()
    (tmp_path / "b.ndjson").write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "d.JSON").write_bytes(b"\xef\xbb\xbf not JSON\n" + lines)
    documents, tally = read(tmp_path)
    assert [d.text for d in documents] == [record["text"] for record in records(3)] * 4
    assert tally.rejected["invalid JSON"].first == f"{tmp_path}/d.JSON:1"


@pytest.mark.parametrize("name", ["b.json", "b.json.gz"])
def test_json_that_is_not_lines_is_named(name: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", records(2))
    path = tmp_path / name
    pack = gzip.compress if name.endswith(".gz") else bytes
    path.write_bytes(pack(b"\xef\xbb\xbf\r\n" + json.dumps(records(3), indent=1).encode()))
    for given in (tmp_path, path):
        with pytest.raises(InputError, match=rf"{name} is one JSON array, not JSON lines"):
            find_inputs([str(given)])
    path.write_bytes(pack(json.dumps({"text": "a", "more": {"b": 1}}, indent=1).encode()))
    assert found(tmp_path) == (["a.jsonl"], [f"left out of {tmp_path}, as no text: {path}."])
    with pytest.raises(InputError, match=rf"{name} is one JSON object over many lines, not JSON lines"):
        find_inputs([str(path)])


def test_files_that_are_not_read_are_named(in_process: Command, tmp_path: Path, tokenizer_folder: Path) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/z.jsonl", records(20))
    for name in *(f"{i}.md" for i in range(7)), "x.csv", "LICENCE", ".hidden", "cache-me.arrow":
        (tmp_path / "in" / name).write_text("x")
    named = "in/0.md, in/1.md, in/2.md, in/3.md, in/4.md, 1 more of .arrow, 1 more of .csv, 2 more of .md"
    sentence = f"note: left out of in, as no text: 10 files ({named}, 1 more of no ending).\n"
    rest = ("--tokenizer", tokenizer_folder, "--output-prefix", "out")
    assert in_process("preprocess", "--input", "in", *rest).stderr == sentence
    trained = in_process("train_tokenizer", "--input", "in", "--vocab-size", 400, "--output", "tok")
    assert trained.stderr == sentence
    assert in_process("train_tokenizer", "--output", "tok", "--evaluate", "a=in").stderr == sentence


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    for given in (tmp_path, tmp_path / "a.jsonl"):
        with pytest.raises(InputError, match=r"a\.jsonl is no regular file"):
            find_inputs([str(given)])


def _nothing(folder: Path) -> list[Path]:
    """Files of every kind in which there is nothing: of 0 bytes, and whole ones without content."""
    kinds = ("jsonl", "ndjson", "json", "txt", "jsonl.gz", "txt.xz", "jsonl.zst", "parquet", "arrow", "feather")
    for kind in kinds:
        (folder / f"b0.{kind}").touch()
    (folder / "b1.jsonl.gz").write_bytes(gzip.compress(b""))
    (folder / "b1.txt.xz").write_bytes(lzma.compress(b""))
    (folder / "b1.jsonl.zst").write_bytes(zstandard.compress(b""))
    (folder / "b1.jsonl").write_bytes(b"\xef\xbb\xbf\r\n\n")
    none = pyarrow.table({"text": pyarrow.array([], pyarrow.string())})
    parquet.write_table(none, folder / "b1.parquet")
    feather.write_feather(none, str(folder / "b1.feather"))
    return sorted(folder.glob("b*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_files_that_hold_nothing_are_read_as_empty_and_named(
    workers: int, tmp_path: Path, tokenizer_folder: Path
) -> None:
    write_jsonl(tmp_path / "a.jsonl", records(5))
    nothing = _nothing(tmp_path)
    write_jsonl(tmp_path / "c.jsonl", records(5))
    config = PreprocessConfig([str(tmp_path)], str(tokenizer_folder), str(tmp_path / "out"), workers)
    summary = preprocess(config)
    assert summary.total.documents == 10
    assert summary.notices == [describe_empty(nothing)[0]]
    assert summary.notices[0].startswith(f"nothing is in 16 files ({nothing[0]}, ")
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "c.jsonl").unlink()
    with pytest.raises(
        InputError, match="no document could be used of 0 in the input: there is nothing in its files"
    ):
        preprocess(config)
    with pytest.raises(InputError, match=r"nothing is in 10 files \(.*fetch the texts again"):
        find_inputs([str(path) for path in nothing if not path.stat().st_size])


def test_what_begins_with_a_tilde_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell expands it at the start of a word only."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home/texts").mkdir(parents=True)
    path = write_jsonl(tmp_path / "home/texts/a.jsonl", records(2))
    for given in "~/texts", "~/texts/*.jsonl", "~/texts/a.jsonl":
        assert [file.path for file in named_inputs([f"ja={given}"])["ja"]] == [path]
    assert path_argument("~/texts") == str(tmp_path / "home/texts")
    (tmp_path / "~").mkdir()
    assert path_argument("~") == "~"
    write_jsonl(tmp_path / "~/b.jsonl", records(2))
    assert found("~") == (["b.jsonl"], [])


def test_what_it_has_written_itself_is_no_text(tmp_path: Path, tokenizer_folder: Path) -> None:
    """The token files, lists and the work folder may lie inside the input folder."""
    write_jsonl(tmp_path / "a.jsonl", [*records(50), {"text": ""}, *records(2)])
    config = PreprocessConfig([str(tmp_path)], str(tokenizer_folder), str(tmp_path / "out"), dedup="exact")
    first = preprocess(config)
    (tmp_path / "other.partial").mkdir()
    for name in "plan.json", "rejects.jsonl", "duplicates.jsonl":
        shutil.copy(tmp_path / "out.rejects.jsonl", tmp_path / "other.partial" / name)
    again = preprocess(config)
    assert (again.tally.read, again.paths, again.notices) == (first.tally.read, first.paths, [])
    assert found(tmp_path / "**/*.jsonl") == found(tmp_path / "*") == (["a.jsonl"], [])
    (tmp_path / "my.rejects.jsonl").write_text('{"text": "mine"}\n')
    for given in (tmp_path, tmp_path / "*.jsonl"):
        names, (notice,) = found(given)
        assert names == ["a.jsonl"]
        assert "my.rejects.jsonl" in notice
    assert found(tmp_path / "my.rejects.jsonl") == (["my.rejects.jsonl"], [])


def test_a_path_with_an_equals_sign_is_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in "lang=ja", "lang=en", "ja", "other":
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "p.jsonl", records(50))
    for path in "lang=*/*.jsonl", "lang=ja/p.jsonl", "lang=ja":
        assert not are_named([path])
        with pytest.raises(InputError, match="is a path without a name: write NAME=lang="):
            named_inputs([path])
        assert are_named([f"x={path}"])
        assert all(str(file.path).startswith("lang=") for file in named_inputs([f"x={path}"])["x"])
    assert list(named_inputs(["ja=ja", "en=./lang=en"])) == ["ja", "en"]
    trained = in_process("train_tokenizer", "--input", "lang=*/*.jsonl", "--vocab-size", 400, "--output", "tok")
    assert "documents   100" in trained.stdout, trained.stderr
    measured = in_process("train_tokenizer", "--output", "tok", "--evaluate", "lang=*/*.jsonl")
    assert (measured.returncode, "is a path without a name" in measured.stderr) == (2, True)
