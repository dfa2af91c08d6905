"""Text shared out among machines with --shard and merged again is, to the byte, what one machine makes of it."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.storage.joined import open_joined
from megatron_iberis.text import finishing
from megatron_iberis.text import preprocess as preprocess_module
from megatron_iberis.text.config import PreprocessConfig, Shard
from megatron_iberis.text.ordering import duplicates
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.reading import decompression
from megatron_iberis.text.reading.inputs import InputFile, find_inputs
from megatron_iberis.text.reading.parts import part_of
from megatron_iberis.text.reading.readers import read_batches
from megatron_iberis.text.sharding import merge_shards

from .conftest import ROOT, Command, assert_user_error, records, write_jsonl
from .test_resume import killed_at

FAULTS = b'nothing\n\n{"text": ""}\n{"source": "no text"}\n'


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A file of every kind, with duplicates and faults in several, some of them in the middle of a line's file."""
    folder = tmp_path / "in"
    folder.mkdir()
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=5)) for _ in range(200)]
    lines = [{**record, "text": f"{record['text']} {' '.join(draw.choices(words, k=40))}"} for record in records(150)]
    first = write_jsonl(folder / "a.jsonl", lines[:90]).read_bytes().splitlines(keepends=True)
    (folder / "a.jsonl").write_bytes(
        b"\xef\xbb\xbf" + b"".join([*first[:20], FAULTS, *first[20:70], FAULTS, *first[70:]])
    )
    packed = write_jsonl(folder / "packed", lines[80:110]).read_bytes()
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(packed + FAULTS))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(packed[:2000].rpartition(b"\n")[0]))
    (folder / "packed").unlink()
    parquet.write_table(pyarrow.Table.from_pylist([*lines[100:130], {"text": None}]), folder / "d.parquet")
    (folder / "e.jsonl").write_bytes(b"")
    (folder / "f.txt").write_text(lines[130]["text"])
    last = write_jsonl(folder / "g.jsonl", [*lines[120:], *lines[:10]])
    last.write_bytes(last.read_bytes() + FAULTS + b'{"text": "the last line, without an end", "source": "books/1"}')
    return folder


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small input goes through the joints of a large one."""
    monkeypatch.setattr(decompression, "BLOCK", 3_000)
    monkeypatch.setattr(duplicates, "CHUNK", 7)
    monkeypatch.setattr(finishing, "_PIECE", 500)


Outputs = dict[str, bytes]


def outputs(prefix: Path) -> Outputs:
    """Everything that has the name of the whole, and no shard's."""
    found = [p for p in prefix.parent.glob(f"{prefix.name}[._]*") if "-of-" not in p.name]
    return {path.name: path.read_bytes() for path in found}


def taken(prefix: Path) -> Outputs:
    """The outputs, which are not there any more then."""
    found = outputs(prefix)
    for name in found:
        (prefix.parent / name).unlink()
    return found


@pytest.fixture
def run(tmp_path: Path, corpus: Path, tokenizer_folder: Path) -> Any:
    def start(shard: str | None = None, **options: Any) -> Any:
        parsed = None if shard is None else Shard.parse(shard)
        given = {"input": [str(corpus)], "output_prefix": str(tmp_path / "out"), **options}
        return preprocess(PreprocessConfig(tokenizer=str(tokenizer_folder), shard=parsed, **given))

    return start


FINISHING: list[dict[str, Any]] = [
    {},
    {"shuffle": 3, "append_eod": True, "min_chars": 80},
    {"dedup": "exact", "val_fraction": 0.3, "split_key": None},
    {"dedup": "minhash", "shuffle": 7, "val_fraction": 0.2},
]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("options", FINISHING, ids=lambda options: "-".join(options) or "plain")
def test_merged_shards_equal_one_machine_to_the_byte(options: dict[str, Any], run: Any, tmp_path: Path) -> None:
    """Token files, manifests and both lists: nothing differs, not even in the manifest."""
    run(**options)
    whole = taken(tmp_path / "out")
    assert whole["out.rejects.jsonl"].count(b'"invalid JSON"') == 4
    assert ("out.duplicates.jsonl" in whole) == ("dedup" in options)
    for count in (1, 3, 8):
        for number in sorted(range(1, count + 1), key=lambda number: number % 3):  # in any order
            run(f"{number}/{count}", **options)
        merge_shards(str(tmp_path / "out"))
        assert taken(tmp_path / "out") == whole, count
        for path in tmp_path.glob("out.*-of-*"):
            path.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_split_key_keeps_works_together_across_shards(run: Any, tmp_path: Path, corpus: Path) -> None:
    for path in corpus.iterdir():  # the split key must be everywhere
        if path.name not in ("b.jsonl.gz", "d.parquet", "g.jsonl"):
            path.unlink()
    options = {"split_key": "source", "val_fraction": 0.4, "dedup": "exact", "shuffle": 1}
    run(**options)
    whole = taken(tmp_path / "out")
    assert "out_val_text_document.bin" in whole
    for number in (1, 2, 3):
        run(f"{number}/3", **options)
    merge_shards(str(tmp_path / "out"))
    assert taken(tmp_path / "out") == whole


def test_more_shards_than_documents_leave_some_empty(run: Any, tmp_path: Path) -> None:
    few = write_jsonl(tmp_path / "in/few.jsonl", records(3))
    options = {"input": [str(few)], "dedup": "exact"}
    run(**options)
    whole = taken(tmp_path / "out")
    for number in range(1, 9):
        run(f"{number}/8", **options)
    there = sorted(path.name for path in tmp_path.glob("out.*-of-8_text_document.idx"))
    assert len(there) == 3
    merge_shards(str(tmp_path / "out"))
    assert taken(tmp_path / "out") == whole


def test_a_damaged_file_is_passed_over_once(run: Any, tmp_path: Path, corpus: Path) -> None:
    """Neither is the rest of it read by the shard behind it, nor a file that is not UTF-8 by several."""
    packed = (corpus / "b.jsonl.gz").read_bytes()
    (corpus / "b.jsonl.gz").write_bytes(packed[: len(packed) * 2 // 3])
    (corpus / "e.jsonl").write_bytes((corpus / "g.jsonl").read_text().encode("utf-16"))
    options = {"on_error": "skip", "shuffle": 5}
    run(**options)
    whole = taken(tmp_path / "out")
    assert whole["out.rejects.jsonl"].count(b'"unreadable file"') == 2
    for number in range(1, 9):
        run(f"{number}/8", **options)
    merge_shards(str(tmp_path / "out"))
    assert taken(tmp_path / "out") == whole


def test_shards_in_the_folder_of_the_input_are_no_input(run: Any, tmp_path: Path, corpus: Path) -> None:
    options = {"output_prefix": str(corpus / "out"), "dedup": "exact"}
    run(**options)
    whole = taken(corpus / "out")
    for number in (1, 2, 3):
        notices = run(f"{number}/3", **options).notices
        assert not any("left out of" in notice or "taken for lists" in notice for notice in notices)
    (corpus / "out.1-of-3_text_document.idx").rename(tmp_path / "kept")  # as while its names are given
    assert find_inputs([str(corpus)]) == find_inputs([str(path) for path in sorted(corpus.glob("[a-g].*"))])
    (tmp_path / "kept").rename(corpus / "out.1-of-3_text_document.idx")
    merge_shards(str(corpus / "out"))
    assert taken(corpus / "out") == whole


def test_shards_can_be_trained_on_unmerged(run: Any, tmp_path: Path) -> None:
    """Each is a whole token file, and they hold all documents in the order of the input."""
    run()
    whole = TokenFile(tmp_path / "out_text_document")
    for number in (1, 2, 3):
        run(f"{number}/3")
    shards = [TokenFile(tmp_path / f"out.{number}-of-3_text_document") for number in (1, 2, 3)]
    for shard in shards:
        shard.verify()
        assert shard.num_tokens > whole.num_tokens / 10
    ids = [token for shard in shards for token in shard.tokens(0, shard.num_tokens).tolist()]
    assert ids == whole.tokens(0, whole.num_tokens).tolist()


def test_a_killed_and_resumed_shard_changes_no_byte(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "BLOCK", 3_000)
    monkeypatch.setattr(preprocess_module, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def left() -> Outputs:
        return {path.name: path.read_bytes() for path in tmp_path.glob("out.2-of-3[._]*") if path.is_file()}

    run("2/3", dedup="exact")
    whole = left()
    assert whole.keys() > {"out.2-of-3.shard.json", "out.2-of-3.documents", "out.2-of-3.rejects.jsonl"}
    with killed_at(-1) as seen:
        run("2/3", dedup="exact")
    steps = range(1, seen[0] + 1)
    for step in (*steps[:4], *steps[4:-12:9], *steps[-12:]):
        shutil.rmtree(tmp_path / "out.2-of-3.partial", ignore_errors=True)
        for name in left():
            (tmp_path / name).unlink()
        with killed_at(step):
            run("2/3", dedup="exact")
        if "out.2-of-3.shard.json" in left():  # all is there, or it is not
            assert left() == whole, step
        run("2/3", dedup="exact", resume=True)
        assert left() == whole, step
    assert run("2/3", dedup="exact", resume=True).finished_before


@pytest.fixture
def three(run: Any) -> None:
    for number in (1, 2, 3):
        run(f"{number}/3", dedup="exact")


@pytest.mark.usefixtures("three")
def test_shards_that_do_not_go_together_are_refused(
    run: Any, tmp_path: Path, corpus: Path, in_process: Command
) -> None:
    merge = ("merge", "--shards", "out")
    (tmp_path / "out.2-of-3.shard.json").rename(tmp_path / "kept")
    assert_user_error(in_process(*merge), "of the shards of out, 2/3 is missing: run preprocess.py with --shard 2/3")
    run("2/3", dedup="exact", min_chars=3)
    assert_user_error(in_process(*merge), "out.2-of-3 was made with another min_chars than out.1-of-3 (3, not 0)")
    run("2/3", dedup="exact", shuffle=3)
    assert_user_error(in_process(*merge), "out.2-of-3 was made with another shuffle")
    os.utime(corpus / "d.parquet", (1, 1))
    run("2/3", dedup="exact")
    assert_user_error(in_process(*merge), "were made of different input files", "d.parquet on")
    run("4/4", dedup="exact")
    assert_user_error(in_process(*merge), "out has shards of 3 and of 4: remove")
    (tmp_path / "out.4-of-4.shard.json").unlink()
    (tmp_path / "out.3-of-3.partial").mkdir()
    assert_user_error(in_process(*merge), "shard 3/3 is not finished (out.3-of-3.partial)")
    assert_user_error(in_process("merge", "--shards", "none"), "there are no shards none.I-of-N")
    assert_user_error(in_process("merge", "--input", "out.1-of-3"), "--output-prefix is missing")
    assert not outputs(tmp_path / "out")


@pytest.mark.usefixtures("three")
def test_damaged_shards_and_two_merges_at_once_are_refused(tmp_path: Path, in_process: Command) -> None:
    documents = tmp_path / "out.2-of-3.documents"
    whole = documents.read_bytes()
    documents.write_bytes(whole[:-1])
    assert_user_error(
        in_process("merge", "--shards", "out"), "out.2-of-3.documents is not there as shard 2/3 left it"
    )
    documents.write_bytes(whole)
    work = finishing.WorkFolder(str(tmp_path / "out"), {}, resume=False)
    try:
        assert_user_error(in_process("merge", "--shards", "out"), "another run is writing out")
    finally:
        work.close()
    done = in_process("merge", "--shards", "out", "--output-prefix", "all")
    assert done.returncode == 0, done.stderr
    assert "all_text_document.bin .idx .json: 151 documents" in done.stdout
    refused = in_process("merge", "--input", "out.1-of-3", "out.2-of-3", "--output-prefix", "two")
    assert_user_error(refused, "out.1-of-3_text_document", "--shards")


def test_a_shard_that_there_cannot_be_is_one_sentence(
    in_process: Command, tmp_path: Path, corpus: Path, tokenizer_folder: Path
) -> None:
    base = ("preprocess", "--input", "in", "--tokenizer", tokenizer_folder, "--output-prefix", "out", "--shard")
    assert_user_error(in_process(*base, "0/8"), "there is no shard 0 of 8: I goes from 1 to 8", "--array=1-8")
    assert_user_error(in_process(*base, "9/8"), "there is no shard 9 of 8")
    assert_user_error(in_process(*base, "1/0"), "there are no 0 shards")
    assert_user_error(in_process(*base, "1"), "--shard is I/N, such as 2/8")
    assert_user_error(in_process(*base[:2], "-", *base[3:], "1/2"), "standard input cannot be read by several shards")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(st.sampled_from([b"", b"a", b"bcd", b"e" * 30]), max_size=6), min_size=1, max_size=4),
    count=st.integers(1, 9),
    block=st.integers(1, 40),
)
def test_parts_are_the_whole_in_order(
    files: list[list[bytes]], count: int, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every line is in one part, with its number and offset, whatever the lines, the files and the blocks."""
    folder = tmp_path_factory.mktemp("parts")
    for number, lines in enumerate(files):
        (folder / f"{number}.jsonl").write_bytes(b"\n".join(lines))
    inputs = [InputFile(path, ".jsonl", "", path.stat().st_size) for path in sorted(folder.iterdir())]

    def read(number: int, parts: int) -> Iterator[tuple[Any, ...]]:
        part = part_of(inputs, number, parts)
        for batch in read_batches(inputs, "text", start=part.numbered_start(), stop=part.stop):
            for record in batch.records():
                yield batch.path, record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decompression, "BLOCK", block)
        parts = itertools.chain(*(read(number, count) for number in range(1, count + 1)))
        assert list(parts) == list(read(1, 1))


def test_shards_are_of_equal_size_where_files_can_be_cut(tmp_path: Path) -> None:
    for name, times in (("a", 1), ("b", 300), ("c", 20)):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": "some words"}] * times * 10)
    inputs = find_inputs([str(tmp_path)])
    sizes = [
        sum(len(batch.content or b"") for batch in read_batches(inputs, "text", start=part.start, stop=part.stop))
        for part in (part_of(inputs, number, 7) for number in range(1, 8))
    ]
    assert max(sizes) - min(sizes) < 50


def test_joined_files_read_as_one(tmp_path: Path) -> None:
    parts = [b"abc", b"", b"defgh", b"i"]
    for number, part in enumerate(parts):
        (tmp_path / str(number)).write_bytes(part)
    with open_joined([tmp_path / str(number) for number in range(4)]) as file:
        assert file.read(4) == b"abcd"
        assert file.read() == b"efghi"
        file.seek(2)
        assert file.read(2) == b"cd"
    with open_joined([]) as file:
        assert file.read(3) == b""


SBATCH = """#!/usr/bin/env bash
# Does at once what SLURM's sbatch has nodes do later: every task of the array, or what --wrap says.
set -euo pipefail
while [[ "$1" == --* ]]; do
    case "$1" in
        --array=*) tasks="${1#--array=}"; shift ;;
        --wrap) bash -c "$2"; exit ;;
        --dependency=*) [[ "$1" == --dependency=afterok:[0-9]* ]]; shift ;;
        *) shift ;;
    esac
done
export SLURM_SUBMIT_DIR="$PWD" SLURM_ARRAY_TASK_COUNT=$((${tasks#*-} - ${tasks%-*} + 1)) SLURM_CPUS_PER_TASK=1
for task in $(seq "${tasks%-*}" "${tasks#*-}"); do SLURM_ARRAY_TASK_ID=$task bash "$@" >&2; done
echo 4711
"""


@pytest.mark.full
def test_the_slurm_example_does_what_it_says(
    run: Any, tmp_path: Path, corpus: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of its comment as they stand there, for three shards, and with a task submitted once more."""
    monkeypatch.chdir(tmp_path)
    for name, target in (("corpus", corpus), ("tokenizer", tokenizer_folder)):
        Path(name).symlink_to(target)
    for name in ("data_tools", "examples"):
        Path(name).symlink_to(ROOT / name)
    options = {"input": ["corpus"], "output_prefix": "tokens/corpus", "dedup": "exact", "shuffle": 1}
    preprocess(PreprocessConfig(tokenizer="tokenizer", **options))
    whole = taken(Path("tokens/corpus"))
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in (("sbatch", SBATCH), ("python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    script = (ROOT / "examples/multinode/preprocess_slurm.sh").read_text()
    commands = [line.removeprefix("#   ") for line in script.splitlines() if line.startswith("#   ")]
    assert [command.partition("=")[0].split()[0] for command in commands] == ["export", "job", "sbatch"]
    commands.insert(2, commands[1].replace("--array=1-8", "--array=2-2"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands).replace("1-8", "1-3").replace("=8", "=3")],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "2-of-3_text_document: finished before" in done.stderr
    assert taken(Path("tokens/corpus")) == whole
