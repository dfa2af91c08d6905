"""Token files hold the documents in order, whatever the workers; the split keeps works together; counts reconcile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.data.token_files.inspection import (
    decode_document,
    describe,
    document_lengths,
    histogram,
    open_token_file,
)
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.encoding import in_validation
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.reading.records import Document
from megatron_iberis.text.summary import Summary
from megatron_iberis.tokenizer import Tokenizer, train

from .conftest import records, write_jsonl


@pytest.fixture
def run(tmp_path: Path, tokenizer_folder: Path) -> Any:
    """run(name, ...) preprocesses tmp_path/input and gives the summary and the train TokenFile."""

    def start(name: str = "out", **options: Any) -> tuple[Summary, TokenFile]:
        options = {"input": [str(tmp_path / "input")], "tokenizer": str(tokenizer_folder), **options}
        summary = preprocess(PreprocessConfig(output_prefix=str(tmp_path / name), **options))
        return summary, TokenFile(tmp_path / f"{name}_text_document")

    (tmp_path / "input").mkdir()
    return start


def test_documents_come_back_in_order_with_bos_before_each(run: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    lines = records(300)
    write_jsonl(tmp_path / "input/a.jsonl", lines[:100])
    write_jsonl(tmp_path / "input/b.jsonl", lines[100:])
    _, file = run()
    assert [tokenizer.decode(ids) for ids in file] == ["<|bos|>" + line["text"] for line in lines]
    assert file.dtype == np.uint16
    _, file = run(prepend_bos=False)
    assert [tokenizer.decode(ids) for ids in file] == [line["text"] for line in lines]


def test_output_bytes_do_not_depend_on_workers(run: Any, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "input/a.jsonl", records(12_000))  # several batches for each worker
    (tmp_path / "input/b.txt").write_text("".join(f"本文{i // 2}。\n\n" for i in range(200_000)))
    outputs = []
    for workers in (1, 2, 4):
        options = {"workers": workers, "val_fraction": 0.1, "dedup": "exact", "shuffle": 5}
        summary, _ = run(f"workers{workers}", **options)
        files = sorted(p for p in tmp_path.glob(f"workers{workers}_*") if p.suffix != ".json")
        outputs.append((summary.tally, summary.splits, [path.read_bytes() for path in files]))
    assert len(outputs[0][2]) == 4
    assert outputs[0] == outputs[1] == outputs[2]


def test_a_document_of_5_mb_on_one_line_survives(run: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    long = "切れ目のない長い行" * 100_000 + "word" * 600_000
    write_jsonl(tmp_path / "input/a.jsonl", [{"text": "before"}, {"text": long}, {"text": "after"}])
    _, file = run()
    assert tokenizer.decode(file[1]) == "<|bos|>" + long
    assert tokenizer.decode(file[2]) == "<|bos|>after"


def test_the_manifest_reconciles(run: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_jsonl(tmp_path / "input/a.jsonl", records(400))
    with path.open("ab") as file:
        file.write(b'{"text": ""}\n{"txt": "a"}\nnothing\n{"txt": 1}\n')
    write_jsonl(tmp_path / "input/b.jsonl", records(50))
    run(val_fraction=0.2)
    manifests = [TokenFile(tmp_path / name).manifest for name in ("out_text_document", "out_val_text_document")]
    assert all(manifests)
    both = [manifest for manifest in manifests if manifest]
    counts = both[0]["input"]
    assert counts == both[1]["input"]
    rejected = sum(kind["count"] for kind in counts["rejected"].values())
    assert counts["read"] == 454 == sum(counts["written"].values()) + counts["empty"] + rejected
    assert counts["rejected"]["missing key"]["first"] == f"{path}:402 has no 'text', but txt"
    text_bytes = sum(len(line["text"].encode()) for line in records(400) + records(50))
    assert sum(manifest["text_bytes"] for manifest in both) == text_bytes
    assert sum(of_file["text_bytes"] for of_file in both[0]["files"].values()) == text_bytes
    for manifest, name in zip(both, ("out_text_document", "out_val_text_document"), strict=True):
        file = TokenFile(tmp_path / name)
        assert manifest["tokens"] == file.num_tokens
        assert manifest["documents"] == file.num_documents == counts["written"][manifest["split"]]
        assert manifest["bytes_per_token"] == round(
            manifest["text_bytes"] / (file.num_tokens - file.num_documents), 4
        )
        assert (manifest["tokenizer"], manifest["vocab_size"]) == (tokenizer.fingerprint, tokenizer.vocab_size)
        assert manifest["arguments"]["val_fraction"] == 0.2


def test_no_book_straddles_the_split(run: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    lines = records(300)
    write_jsonl(tmp_path / "input/a.jsonl", lines)
    run(val_fraction=0.3, split_key="source")
    book = {"<|bos|>" + line["text"]: line["source"].split(" (")[0] for line in lines}
    sides = [
        {book[tokenizer.decode(ids)] for ids in TokenFile(tmp_path / f"out{suffix}_text_document")}
        for suffix in ("", "_val")
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


@settings(max_examples=50, deadline=None)
@given(key=st.text(max_size=20), part=st.text(max_size=9), fraction=st.floats(0.001, 0.999))
def test_the_split_depends_on_the_key_alone_and_grows_with_the_fraction(key: str, part: str, fraction: float) -> None:
    one = in_validation(Document("text", "a.jsonl", 1, 4, key), fraction)
    assert in_validation(Document("other", "b.jsonl", 9, 5, f"{key} ({part})"), fraction) == one
    assert not one or in_validation(Document("text", "a.jsonl", 1, 4, key), min(0.999, fraction * 1.5))


def test_the_split_is_the_fraction_asked_for_and_never_changes() -> None:
    chosen = [i for i in range(20_000) if in_validation(Document(f"text {i}", "", 1, 0, None), 0.05)]
    assert 900 < len(chosen) < 1100
    assert chosen[:5] == [3, 33, 43, 62, 102]  # what runs of today and of next year must agree on


def test_a_large_vocabulary_is_stored_as_int32(run: Any, tmp_path: Path) -> None:
    # Every CJK ideograph and Hangul syllable three times: enough pieces for a vocabulary beyond uint16.
    characters = [
        *map(chr, range(0x3400, 0x9FFF)),
        *map(chr, range(0xAC00, 0xD7A3)),
        *map(chr, range(0x20000, 0x2A6DF)),
    ]
    big = train(["\n".join(c * 3 for c in characters)], 66_000, tmp_path / "big")
    write_jsonl(tmp_path / "input/a.jsonl", [{"text": big.decode([65_999, 300, 65_536])}])
    _, file = run(tokenizer=str(tmp_path / "big"))
    assert file.dtype == np.int32
    assert file[0].max() > 65_535


def test_inspection_counts_and_decodes(run: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    lines = records(100)
    write_jsonl(tmp_path / "input/a.jsonl", lines)
    _, file = run()
    for name in "out", "out_text_document", "out_text_document.bin", "out_text_document.idx":
        assert open_token_file(str(tmp_path / name)).prefix == file.prefix
    lengths = [len(tokenizer.encode(line["text"])) + 1 for line in lines]
    assert document_lengths(file).tolist() == lengths
    rows = dict(describe(file))
    assert rows["documents"] == "100"
    assert rows["longest"].startswith(f"{max(lengths):,} tokens (document {lengths.index(max(lengths))})")
    bars = [line.split() for line in histogram(file)]
    assert sum(int(bar[3].replace(",", "")) for bar in bars) == 100
    assert decode_document(file, 7, tokenizer) == "<|bos|>" + lines[7]["text"]
    with pytest.raises(ValueError, match="has no document 100: choose 0 to 99"):
        decode_document(file, 100, tokenizer)
    other = train([line["text"] for line in lines], 400, tmp_path / "other")
    with pytest.raises(ValueError, match="another tokenizer"):
        decode_document(file, 7, other)
