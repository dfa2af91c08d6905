"""Standard input, xz, arrow files and folders of `datasets` give what .jsonl gives; reading can begin anywhere."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import datasets
import pyarrow
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.text.reading import decompression, streams, tables
from megatron_iberis.text.reading.batch import Position, RawBatch
from megatron_iberis.text.reading.inputs import find_inputs
from megatron_iberis.text.reading.readers import read_batches

from .conftest import Command, records, write_jsonl
from .test_reading import read

LINES = records(400)
TEXTS = [line["text"] for line in LINES]


def test_xz_and_arrow_give_the_same_documents(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "a.jsonl", LINES)
    (tmp_path / "b.jsonl.xz").write_bytes(
        lzma.compress(plain.read_bytes()[:9000]) + lzma.compress(plain.read_bytes()[9000:])
    )
    table = pyarrow.Table.from_pylist(LINES)
    feather.write_feather(table, str(tmp_path / "c.arrow"), compression="lz4", chunksize=150)
    with pyarrow.ipc.new_stream(str(tmp_path / "d.arrow"), table.schema) as stream:
        stream.write_table(table, max_chunksize=150)
    for name in "b.jsonl.xz", "c.arrow", "d.arrow":
        documents, tally = read(tmp_path / name, split_key="source")
        assert [(d.text, d.key) for d in documents] == [(line["text"], line["source"]) for line in LINES], name
        assert tally.read == 400
    (tmp_path / "e.txt.xz").write_bytes(lzma.compress("一行。\n".encode()))
    assert [d.text for d in read(tmp_path / "e.txt.xz")[0]] == ["一行。\n"]


def test_folders_of_datasets_are_read_without_their_caches(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(LINES)
    data.shuffle(seed=1).save_to_disk(str(tmp_path / "one"), num_shards=2)
    (tmp_path / "one/cache-12ab.arrow").write_bytes((tmp_path / "one/data-00000-of-00002.arrow").read_bytes())
    assert [d.text for d in read(tmp_path / "one")[0]] == [line["text"] for line in data.shuffle(seed=1)]
    datasets.DatasetDict({"train": data}).save_to_disk(str(tmp_path / "dict"))
    assert [d.text for d in read(tmp_path / "dict")[0]] == TEXTS


@pytest.mark.parametrize("name", ["a.jsonl.xz", "a.arrow"])
def test_a_cut_off_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".arrow"):
        table = pyarrow.Table.from_pylist(LINES)
        with pyarrow.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    else:
        path.write_bytes(lzma.compress(b"\n".join(json.dumps(line).encode() for line in LINES)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"{name} is (cut off|damaged)"):
        read(path)
    path.write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(ValueError, match=rf"{name} is (cut off|damaged)"):
        read(path)


def test_standard_input_gives_the_same_file(command: Command, tmp_path: Path, tokenizer_folder: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", LINES)
    arguments = ("preprocess", "--tokenizer", tokenizer_folder, "--output-prefix")
    assert command(*arguments, "a", "--input", path).returncode == 0
    piped = command(*arguments, "b", "--input", "-", before=f"exec < {path}")
    assert piped.returncode == 0, piped.stderr
    assert (tmp_path / "a_text_document.bin").read_bytes() == (tmp_path / "b_text_document.bin").read_bytes()
    manifest = TokenFile(tmp_path / "b_text_document").manifest
    assert manifest is not None
    assert list(manifest["files"]) == ["-"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind of reader."""
    folder = tmp_path_factory.mktemp("forms")
    plain = write_jsonl(folder / "a.jsonl", LINES)
    (folder / "b.jsonl.zst").write_bytes(
        zstandard.compress(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n\n"))
    )
    (folder / "c.txt").write_text("段落\n\n" * 3000 + "x" * 5000)
    table = pyarrow.Table.from_pylist(LINES)
    parquet.write_table(table, folder / "d.parquet", row_group_size=70)
    feather.write_feather(table, str(folder / "e.arrow"), compression="uncompressed", chunksize=150)
    return folder


def contents(batches: Iterator[RawBatch]) -> list[tuple[object, ...]]:
    return [(batch.path, *record) for batch in batches for record in batch.records()]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(100, 9000), rows=st.integers(1, 200), part=st.integers(10, 2000), stop=st.data())
def test_reading_goes_on_from_the_end_of_any_batch(
    batch: int, rows: int, part: int, stop: st.DataObject, folder: Path
) -> None:
    files = find_inputs([str(folder)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decompression, "BLOCK", batch)
        patch.setattr(streams, "_PART", part)
        patch.setattr(tables, "_ROWS", rows)
        batches = list(read_batches(files, "text"))
        chosen = stop.draw(st.integers(0, len(batches) - 1))
        assert all(a.bytes_read <= b.bytes_read for a, b in pairwise(batches))
        assert batches[-1].bytes_read == sum(file.size for file in files)
        assert batches[-1].end == Position(len(files))
        rest = read_batches(files, "text", None, batches[chosen].end)
        assert contents(rest) == contents(iter(batches[chosen + 1 :]))
