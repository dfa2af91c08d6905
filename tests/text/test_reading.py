"""Every supported form gives the same documents; what can't be used is counted and located; no document is lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from megatron_iberis.text.reading import streams
from megatron_iberis.text.reading.inputs import find_inputs
from megatron_iberis.text.reading.records import Document, Tally, read_documents

from .conftest import records, write_jsonl


def read(*names: Path | str, json_key: str = "text", split_key: str | None = None) -> tuple[list[Document], Tally]:
    tally = Tally()
    return list(read_documents(find_inputs([str(n) for n in names]), json_key, tally, split_key)), tally


def test_all_forms_give_the_same_documents(tmp_path: Path) -> None:
    lines = records(500)
    plain = write_jsonl(tmp_path / "a.jsonl", lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    halves = plain.read_bytes()[:5000], plain.read_bytes()[5000:]
    (tmp_path / "c.jsonl.zst").write_bytes(b"".join(zstandard.compress(half) for half in halves))  # two frames
    (tmp_path / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n\r\n"))
    parquet.write_table(pyarrow.Table.from_pylist(lines), tmp_path / "e.parquet", row_group_size=70)
    dictionary = pyarrow.array([line["text"] for line in lines]).dictionary_encode()
    sources = pyarrow.array([line["source"] for line in lines], pyarrow.large_string())
    parquet.write_table(pyarrow.table({"source": sources, "text": dictionary}), tmp_path / "f.parquet")
    for name in "a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.jsonl", "e.parquet", "f.parquet":
        documents, tally = read(tmp_path / name, split_key="source")
        assert [(d.text, d.key) for d in documents] == [(line["text"], line["source"]) for line in lines], name
        assert all(d.size == len(d.text.encode()) for d in documents)
        assert tally == Tally(read=500)
    documents, _ = read(tmp_path / "e.parquet")
    assert [d.line for d in documents] == list(range(1, 501))


BAD_LINES = [
    (b'{"text": "cut of', "invalid JSON", ""),
    (b"null", "wrong type", " is not a JSON object"),
    (b'{"content": "a", "id": 1}', "missing key", " has no 'text', but content, id"),
    (b'{"text": ["a"]}', "wrong type", " has 'text' of type list"),
    (b'{"text": "\xe3\x81"}', "invalid UTF-8", ""),
    (b'{"text": "\\ud83d"}', "lone surrogate", ""),
]


@pytest.mark.parametrize(("line", "kind", "hint"), BAD_LINES)
def test_a_bad_line_is_counted_and_located_and_the_rest_is_read(
    line: bytes, kind: str, hint: str, tmp_path: Path
) -> None:
    good = b'{"text": "good", "score": NaN}\n'
    path = tmp_path / "a.jsonl"
    path.write_bytes(good + b"\n" + line + b"\n" + good + line + b'\n{"text": " \\n"}')
    documents, tally = read(path)
    assert [(d.text, d.line) for d in documents] == [("good", 1), ("good", 4)]
    assert (tally.read, tally.empty, tally.usable) == (5, 1, 2)
    assert tally.rejected[kind].count == 2
    assert tally.rejected[kind].first == f"{path}:3{hint}"


def test_bad_parquet_values_are_counted(tmp_path: Path) -> None:
    invalid = pyarrow.Array.from_buffers(
        pyarrow.string(), 1, [None, pyarrow.array([0, 1], pyarrow.int32()).buffers()[1], pyarrow.py_buffer(b"\xff")]
    )
    column = pyarrow.chunked_array([pyarrow.array(["a", None, ""]), invalid])
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    documents, tally = read(tmp_path / "a.parquet")
    assert [d.text for d in documents] == ["a"]
    assert (tally.read, tally.empty) == (4, 1)
    assert {kind: rejects.first for kind, rejects in tally.rejected.items()} == {
        "wrong type": f"{tmp_path}/a.parquet:2",
        "invalid UTF-8": f"{tmp_path}/a.parquet:4",
    }


def test_a_text_file_is_one_document_and_a_long_one_parts_that_join_to_it(tmp_path: Path) -> None:
    small = "　はじめに\n\n本文。\n"
    (tmp_path / "small.txt").write_text(small)
    paragraphs = "".join(f"段落{i}の一行目。\n二行目。\n\n" for i in range(80_000))
    one_line = "終わりのない行" * 100_000
    (tmp_path / "zlong.txt").write_text(paragraphs + one_line)
    documents, _ = read(tmp_path)
    assert documents[0].text == small
    parts = [d.text for d in documents[1:]]
    assert "".join(parts) == paragraphs + one_line
    assert max(d.size for d in documents) <= 1 << 20
    assert all(part.endswith("\n\n") for part in parts[:3])
    assert [d.line for d in documents[1:3]] == [1, 1 + parts[0].count("\n")]


@settings(deadline=None, max_examples=200)
@given(
    content=st.lists(st.sampled_from([b"\n", b"\n\n", b"x", b"yy", "漢字".encode(), b"z" * 9])).map(b"".join),
    size=st.integers(4, 11),
)
def test_cutting_and_line_splitting_lose_nothing(content: bytes, size: int) -> None:
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_PART", size)
        parts = list(streams._texts(blocks, 1, 0))
    assert b"".join(part or b"" for _, _, part in parts) == content
    start = 0
    for line, offset, part in parts:
        assert part is not None
        assert len(part) <= size
        assert offset == start
        part.decode()
        assert line == 1 + content.count(b"\n", 0, start)
        start += len(part)
    lines = list(streams._lines(blocks, 1, 0))
    assert b"".join(part or b"" for _, _, part in lines) == content
    for line, offset, part in lines:
        assert part is not None
        assert content[offset:].startswith(part)
        assert line == 1 + content.count(b"\n", 0, offset)
    assert all(part is not None and part.endswith(b"\n") for _, _, part in lines[:-1])


@settings(deadline=None, max_examples=200)
@given(
    lines=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    size=st.integers(1, 50),
    ended=st.booleans(),
)
def test_a_line_that_is_too_long_is_left_out_and_no_other(lines: list[int], size: int, ended: bool) -> None:
    contents = [bytes([97 + i % 26]) * length for i, length in enumerate(lines)]
    content = b"\n".join(contents) + b"\n" * ended
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "LONGEST", 30)
        parts = list(streams._lines(blocks, 1, 0))
    found: list[bytes] = []
    for number, offset, part in parts:
        assert number == len(found) + 1
        assert offset == sum(len(line) + 1 for line in contents[: len(found)])
        if part is None:
            assert len(contents[len(found)]) > 30
            found.append(contents[len(found)])
        else:
            found += part.removesuffix(b"\n").split(b"\n")
    # One that is only a little too long may be held, as it came in a block with its end: the worker measures again.
    assert found == contents[: len(found)]
    assert b"".join(contents[len(found) :]) == b""
    assert all(len(part or b"") <= 30 + size for _, _, part in parts)


def test_names_folders_and_globs_are_found_once_and_in_order(tmp_path: Path) -> None:
    for name in "b.jsonl", "a.txt", "deep/c.jsonl.zst", "README.md", ".hidden.txt":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_inputs([str(tmp_path / "b.jsonl"), str(tmp_path), str(tmp_path / "*.txt")])
    assert [f.path.name for f in found] == ["b.jsonl", "a.txt", "c.jsonl.zst"]
    assert [(f.form, f.compression) for f in found] == [(".jsonl", ""), (".txt", ""), (".jsonl", ".zst")]


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_a_cut_off_file_is_named(suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = compress("".join(json.dumps(line) + "\n" for line in records(2000)).encode())
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"a\.jsonl\.{suffix} is cut off"):
        read(path)
    path.write_bytes(b"not compressed at all\n")
    with pytest.raises(ValueError, match=rf"a\.jsonl\.{suffix} is damaged"):
        read(path)


def test_a_cut_off_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(records(100)), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.parquet is damaged"):
        read(path)
    parquet.write_table(pyarrow.Table.from_pylist(records(100)), path)
    with pytest.raises(ValueError, match=r"no column 'body': choose among text, source"):
        read(path, json_key="body")
