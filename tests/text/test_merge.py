"""Merged token files hold the documents of their parts; --verify notices any byte that has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_iberis.data.token_files import merging
from megatron_iberis.data.token_files.merging import merge
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.data.token_files.verification import verify
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.tokenizer import train
from tests.support.token_files import TokenFileWriter
from tests.text.conftest import Command, assert_user_error, records, write_jsonl


@pytest.fixture
def parts(tmp_path: Path, tokenizer_folder: Path) -> list[str]:
    """Two token files of the halves of records(60), and "whole" of all of it."""
    for name, lines in ("a", records(60)[:25]), ("b", records(60)[25:]), ("whole", records(60)):
        path = write_jsonl(tmp_path / f"{name}.jsonl", lines)
        preprocess(PreprocessConfig([str(path)], str(tokenizer_folder), str(tmp_path / name)))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def content(prefix: Path) -> tuple[bytes, bytes]:
    return tuple(Path(f"{prefix}_text_document.{kind}").read_bytes() for kind in ("bin", "idx"))  # type: ignore[return-value]


def test_merging_parts_gives_the_file_of_all_text(parts: list[str], tmp_path: Path) -> None:
    prefix = merge(parts, str(tmp_path / "merged"))
    assert prefix == f"{tmp_path}/merged_text_document"
    assert content(tmp_path / "merged") == content(tmp_path / "whole")
    merged, whole = TokenFile(prefix).manifest, TokenFile(tmp_path / "whole_text_document").manifest
    assert merged is not None
    assert whole is not None
    for name in (
        "documents",
        "tokens",
        "text_tokens",
        "text_bytes",
        "bytes_per_token",
        "sha256",
        "tokenizer",
        "vocab_size",
    ):
        assert merged[name] == whole[name], name
    assert list(merged["files"]) == [f"{part}.jsonl" for part in parts]
    assert [part["documents"] for part in merged["merged"]] == [25, 35]
    verify(TokenFile(prefix))
    assert not (tmp_path / "merged.partial").exists()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=9), min_size=1, max_size=4),
    vocab_size=st.sampled_from([1000, 100_000]),
)
def test_documents_of_several_sequences_survive(
    files: list[list[list[int]]], vocab_size: int, tmp_path: Path
) -> None:
    """Megatron's own builder may write such files, without manifests."""
    documents = [d for file in files for d in file]
    for i, file in enumerate(files):
        with TokenFileWriter(tmp_path / f"part{i}", vocab_size) as writer:
            writer.add_document([i])  # no file is empty
            for lengths in file:
                writer.add_document(np.full(sum(lengths), i), lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_CHUNK", 2)
        merged = TokenFile(merge([str(tmp_path / f"part{i}") for i in range(len(files))], str(tmp_path / "all")))
    merged.verify()
    assert merged.manifest is None
    found = [
        merged.lengths[a:b].tolist() for a, b in zip(merged.document_index, merged.document_index[1:], strict=False)
    ]
    expected = [d for file in files for d in ([1], *file)]
    assert found == expected
    assert merged.num_documents == len(documents) + len(files)
    parts = [TokenFile(tmp_path / f"part{i}") for i in range(len(files))]
    assert merged.tokens(0, merged.num_tokens).tolist() == [
        t for part in parts for t in part.tokens(0, part.num_tokens).tolist()
    ]


def test_files_that_do_not_go_together_are_refused(parts: list[str], in_process: Command, tmp_path: Path) -> None:
    other = train([line["text"] for line in records(60)], 400, tmp_path / "other")
    preprocess(PreprocessConfig([f"{parts[0]}.jsonl"], str(tmp_path / "other"), str(tmp_path / "c")))
    with TokenFileWriter(tmp_path / "d", 100_000) as writer:
        writer.add_document([1])
    with TokenFileWriter(tmp_path / "e", other.vocab_size) as writer:
        writer.add_document([1])
    before = sorted(os.listdir(tmp_path))
    merged = ("merge", "--output-prefix", "all", "--input", parts[0])
    assert_user_error(in_process(*merged, "c"), "were not made with the same tokenizer")
    assert_user_error(in_process(*merged, "d"), "holds uint16", "int32")
    assert_user_error(in_process(*merged, "e"), "not known")
    assert_user_error(in_process(*merged, "none"), "there is no none.idx")
    assert_user_error(
        in_process(*merged[:1], "--input", *parts, "--output-prefix", parts[0]), "is one of the files to merge"
    )
    assert sorted(os.listdir(tmp_path)) == before
    done = in_process("merge", "--input", *parts, "--output-prefix", "all")
    assert done.returncode == 0, done.stderr
    assert "all_text_document.bin .idx: 60 documents" in done.stdout
    verified = in_process("inspect_dataset", "all", "--verify")
    assert verified.stdout.endswith("as in the manifest\n"), verified.stderr


def test_merging_leaves_nothing_of_an_earlier_file_beside_the_new_one(parts: list[str], tmp_path: Path) -> None:
    text = Path(f"{parts[0]}.jsonl")
    text.write_text(text.read_text() + 'nothing\n{"text": ""}\n')
    folder = json.loads(Path(f"{parts[0]}_text_document.json").read_text())["arguments"]["tokenizer"]
    preprocess(PreprocessConfig([f"{parts[0]}.jsonl"] * 2, folder, str(tmp_path / "all"), dedup="exact"))
    assert {path.name.removeprefix("all") for path in tmp_path.glob("all*")} >= {
        ".rejects.jsonl",
        "_text_document.json",
    }
    for part in parts:
        Path(f"{part}_text_document.json").unlink()
    verify(TokenFile(merge(parts, str(tmp_path / "all"))))
    assert sorted(path.name for path in tmp_path.glob("all*")) == ["all_text_document.bin", "all_text_document.idx"]


def damage(kind: str) -> tuple[str, Any]:
    """(part of the message, what to do to the file with prefix p)."""

    def flip(suffix: str, at: int, bits: int = 1) -> Any:
        def change(prefix: str) -> None:
            path = Path(prefix + suffix)
            data = bytearray(path.read_bytes())
            data[at] ^= bits
            path.write_bytes(data)

        return change

    def edit(**values: Any) -> Any:
        def change(prefix: str) -> None:
            path = Path(prefix + ".json")
            path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

        return change

    return {
        "an id": ("bin is not the file that", flip(".bin", 100)),
        "a large id": ("outside the vocabulary of 420", flip(".bin", 101, 255)),
        "a length": ("sequence", flip(".idx", 34)),
        "an offset": ("sequence", flip(".idx", -600)),
        "a count": ("tells of 7 documents, not 60", edit(documents=7)),
        "a hash": ("bin is not the file that", edit(sha256={"bin": None, "idx": ""})),
    }[kind]


@pytest.mark.parametrize("kind", ["an id", "a large id", "a length", "an offset", "a count", "a hash"])
def test_verify_notices_what_has_changed(kind: str, parts: list[str], tmp_path: Path) -> None:
    prefix = f"{tmp_path}/whole_text_document"
    assert verify(TokenFile(prefix))[-1] == ("sha256", "as in the manifest")
    words, change = damage(kind)
    change(prefix)
    with pytest.raises(ValueError, match=words):
        verify(TokenFile(prefix))


def test_verify_works_without_a_manifest(parts: list[str], in_process: Command, tokenizer_folder: Path) -> None:
    Path(f"{parts[0]}_text_document.json").unlink()
    told = in_process("inspect_dataset", parts[0], "--verify", "--tokenizer", tokenizer_folder)
    assert told.returncode == 0, told.stderr
    assert "all below 420" in told.stdout
    assert "not known" in told.stdout
    with open(f"{parts[0]}_text_document.bin", "r+b") as file:
        file.seek(21)
        file.write(b"\xff")
    assert_user_error(
        in_process("inspect_dataset", parts[0], "--verify", "--tokenizer", tokenizer_folder),
        "token 10 of",
        "outside the vocabulary of 420",
    )
