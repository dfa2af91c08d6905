"""Duplicates are removed and documents shuffled as an in-memory implementation would do it, in bounded memory."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_iberis import _C
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.text import finishing
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.encoding import document_dtype
from megatron_iberis.text.ordering import duplicates, shuffling, sorting
from megatron_iberis.text.ordering.duplicates import find_duplicates
from megatron_iberis.text.ordering.shuffling import shuffle
from megatron_iberis.text.ordering.similarity import keys_of
from megatron_iberis.text.ordering.sorting import sort_rows
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.summary import Summary
from megatron_iberis.tokenizer import Tokenizer

from .conftest import Command, assert_user_error, records, write_jsonl


@pytest.fixture
def run(tmp_path: Path, tokenizer_folder: Path) -> Any:
    """run(lines, ...) preprocesses them and gives the summary and the texts in the token file."""
    tokenizer = Tokenizer.load(tokenizer_folder)

    def start(lines: list[dict[str, Any]], **options: Any) -> tuple[Summary, list[str]]:
        path = write_jsonl(tmp_path / "in.jsonl", lines)
        options = {"prepend_bos": False, **options}
        summary = preprocess(PreprocessConfig([str(path)], str(tokenizer_folder), str(tmp_path / "out"), **options))
        file = TokenFile(tmp_path / "out_text_document")
        file.verify()
        return summary, [tokenizer.decode(ids) for ids in file]

    return start


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kB of it, so that a small input goes through every level of what a large one does."""
    monkeypatch.setattr(sorting, "_IN_MEMORY", 2000)
    monkeypatch.setattr(shuffling, "_IN_MEMORY", 2000)
    monkeypatch.setattr(shuffling, "_ROWS", 3)
    monkeypatch.setattr(duplicates, "CHUNK", 7)
    monkeypatch.setattr(finishing, "_PIECE", 500)


def test_the_end_of_document_token_stands_at_the_end(run: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    lines = records(5)
    _, texts = run(lines, append_eod=True)
    assert texts == [line["text"] + "<|bos|>" for line in lines]
    manifest = TokenFile(tmp_path / "out_text_document").manifest
    assert manifest is not None
    tokens = sum(len(tokenizer.encode(line["text"])) for line in lines)
    assert manifest["bytes_per_token"] == round(sum(len(line["text"].encode()) for line in lines) / tokens, 4)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_of_equal_documents_stays_and_the_others_are_listed(workers: int, run: Any, tmp_path: Path) -> None:
    texts = [record["text"] for record in records(60)]
    disguised = [f"  {text.upper()}\n".replace(" ", "\n") for text in texts[:10]]  # case and white space
    wide = ["".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in texts[3])]  # full-width characters
    given = [*texts, *disguised, "another", *wide, texts[0]]
    summary, kept = run([{"text": text} for text in given], dedup="exact", workers=workers)
    assert kept == [*texts, "another"]
    assert (summary.tally.read, summary.duplicates, summary.total.documents) == (73, 12, 61)
    assert summary.total.text_bytes == sum(len(text.encode()) for text in kept)
    listed = [json.loads(line) for line in (tmp_path / "out.duplicates.jsonl").read_text().splitlines()]
    assert [(line["line"], line["duplicate_of"]["line"]) for line in listed] == [
        *((61 + i, 1 + i) for i in range(10)),
        (72, 4),
        (73, 1),
    ]
    assert {line["file"] for line in listed} == {str(tmp_path / "in.jsonl")}
    manifest = TokenFile(tmp_path / "out_text_document").manifest
    assert manifest is not None
    assert (manifest["documents"], manifest["input"]["duplicates"]) == (61, 12)
    assert manifest["files"][str(tmp_path / "in.jsonl")]["documents"] == 61


@pytest.mark.usefixtures("small_memory")
def test_no_text_is_on_both_sides_of_the_split(run: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    lines = [{**line, "source": f"{line['source'][:7]}{i // 40}"} for i, line in enumerate(records(40) * 3)]
    summary, kept = run(lines, dedup="exact", val_fraction=0.5, split_key="source", shuffle=1)
    held_out = [tokenizer.decode(ids) for ids in TokenFile(tmp_path / "out_val_text_document")]
    assert held_out
    assert kept
    assert sorted(kept + held_out) == sorted(line["text"] for line in records(40))
    assert summary.duplicates == 80


def document(draw: random.Random, words: int) -> list[str]:
    return ["".join(draw.choices("あいうえおかきabcdefgh", k=5)) for _ in range(words)]


def test_near_duplicates_are_removed_and_others_are_not(run: Any) -> None:
    draw = random.Random(0)
    originals = [document(draw, 300) for _ in range(40)]
    edited = [[*words[:100], "edited", *words[103:]] for words in originals]  # some 2 % of it
    halves = [words[:150] + document(draw, 150) for words in originals]  # a third of all runs in common
    lines = [{"text": " ".join(words)} for words in (*originals, *edited, *halves)]
    _, kept = run(lines, dedup="minhash")
    assert kept == [line["text"] for line in (*lines[:40], *lines[80:])]


def test_keys_do_not_depend_on_what_stands_beside_a_text() -> None:
    """So neither on batches, nor on workers. The values must never change: they decide what is removed."""
    texts = [
        "",
        "短い",
        "Words of English and 日本語 in a row.",
        *(" ".join(document(random.Random(i), 200)) for i in range(9)),
    ]
    for kind in "exact", "minhash":
        together = keys_of(texts, kind)
        assert together.tolist() == [keys_of([text], kind)[0].tolist() for text in texts]
    assert keys_of(["短い"], "exact").tolist() == [[9478649133172596324]]
    assert keys_of(texts[2:3], "minhash")[0, :2].tolist() == [11285684884114068234, 9871310776044690827]


KEYS = st.sampled_from([0, 1, 5, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=200), top=st.sampled_from([None, 2**64]))
def test_sorting_is_stable_whatever_the_keys(
    rows: list[int], top: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dtype = np.dtype([("by", "<u8"), ("number", "<u4")])
    array = np.array(list(zip(rows, range(len(rows)), strict=True)), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "_IN_MEMORY", 100)
        chunks = (array[i : i + 7] for i in range(0, len(array), 7))
        result = list(sort_rows(chunks, dtype, top or max(rows, default=0) + 1, tmp_path_factory.getbasetemp()))
    assert np.concatenate([array[:0], *result]).tolist() == sorted(array.tolist(), key=lambda row: row[0])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(
        st.tuples(*[st.sampled_from([0, 1, 5, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)] * 16), max_size=60
    )
)
def test_duplicates_are_those_that_share_a_key_with_an_earlier_document(
    keys: list[tuple[int, ...]], small_memory: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    documents = np.zeros(len(keys), document_dtype("minhash"))
    for document, its_keys in zip(documents, keys, strict=True):
        document["keys"] = its_keys
    folder = tmp_path_factory.getbasetemp()
    (folder / "documents").write_bytes(documents.tobytes())
    found = {
        int(pair["by"]): int(pair["first"])
        for chunk in find_duplicates([folder / "documents"], documents.dtype, folder)
        for pair in chunk
    }
    seen: dict[int, int] = {}
    expected = {}
    for number, its_keys in enumerate(keys):
        if earlier := [seen[key] for key in its_keys if key in seen]:
            expected[number] = min(earlier)
        for key in its_keys:
            seen.setdefault(key, number)
    assert found == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=300),
    seed=st.integers(0, 2**64 - 1),
    piece=st.integers(1, 50),
)
def test_shuffling_is_the_keyed_permutation(
    lengths: list[int], seed: int, piece: int, small_memory: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    documents = [np.full(length, i, "<u2") for i, length in enumerate(lengths)]

    def pieces() -> Iterator[tuple[np.ndarray, bytes]]:
        for first in range(0, len(documents), piece):
            part = documents[first : first + piece]
            yield np.array([len(d) for d in part], np.uint32), b"".join(d.tobytes() for d in part)

    shuffled = list(shuffle(pieces(), len(documents), seed, tmp_path_factory.getbasetemp(), 2))
    expected = [documents[i] for i in np.argsort(_C.permute_range(0, len(documents), len(documents), seed))]
    assert np.concatenate([tokens for tokens, _ in shuffled]).tolist() == [len(d) for d in expected]
    assert b"".join(ids for _, ids in shuffled) == b"".join(d.tobytes() for d in expected)


@pytest.mark.usefixtures("small_memory")
def test_shuffling_keeps_every_document_and_depends_on_the_seed_alone(run: Any) -> None:
    lines = records(500)
    orders = [run(lines, shuffle=seed, workers=workers)[1] for seed, workers in ((1, 1), (1, 2), (2, 1))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    for order in orders:
        assert sorted(order) == sorted(line["text"] for line in lines)
        assert order != [line["text"] for line in lines]


def test_what_cannot_work_is_one_sentence(command: Command, tmp_path: Path, tokenizer_folder: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", records(5))
    base = ("preprocess", "--input", "in.jsonl", "--output-prefix", "out", "--tokenizer", tokenizer_folder)
    assert_user_error(command(*base, "--min-chars", -1), "--min-chars must be 0 or more")
    assert_user_error(command(*base, "--shuffle", -1), "--shuffle must be a seed")
    assert_user_error(command(*base, "--min-chars", 10_000), "0 are empty, 5 too short")
    assert not list(tmp_path.glob("out*"))
