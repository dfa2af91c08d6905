"""What datatrove's MegatronDocumentTokenizer writes is read as it is: inspected, merged, trained on."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_iberis.data.mixture import RowLayout, open_mixture, open_validation
from megatron_iberis.data.token_files.inspection import describe, histogram, open_token_file
from megatron_iberis.data.token_files.merging import merge
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.data.token_files.verification import verify
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer
from tests.conftest import Corpus

Documents = Sequence[Sequence[int]]


def write_as_datatrove(prefix: Path, documents: Documents, token_size: int) -> None:
    """RANK_tokens.bin and .idx as a task of datatrove's leaves them: a document is one sequence, an empty one too."""
    lengths = [len(document) for document in documents]
    ends = np.cumsum([0, *lengths])
    dtype, code = ("<i4", 4) if token_size == 4 else ("<u2", 8)
    Path(f"{prefix}.bin").write_bytes(b"".join(np.array(document, dtype).tobytes() for document in documents))
    Path(f"{prefix}.idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, code, len(documents), len(documents) + 1)
        + np.array(lengths, "<i4").tobytes()
        + (ends[:-1] * token_size).astype("<i8").tobytes()
        + np.arange(len(documents) + 1, dtype="<i8").tobytes()
    )


# sha256 of what datatrove 0.10.1's MegatronTokenizedFile wrote for [1, 2, 3], [], [LARGEST, 0], [7].
WRITTEN_BY_DATATROVE = {
    2: (
        65_535,
        "e326f91ae125907f6961eccdbe4e3aeb2f5524aa11241187d08343c0b0e1d0f3",
        "48d00095bc2789c1e844a332371067d3df0125742c9f8f2b1b054245757d6633",
    ),
    4: (
        100_000,
        "76485f32174f80ffc00c3bfd80e973b7fc6a64822643ace4efa0df07b538d21a",
        "dc61adbbaf38966a83a208deb1ebc17cdcf57d6b7099042eca9cb702c6ad40d9",
    ),
}


@pytest.mark.parametrize("token_size", [2, 4])
def test_datatrove_files_are_read_as_they_are(token_size: int, tmp_path: Path) -> None:
    largest, *hashes = WRITTEN_BY_DATATROVE[token_size]
    documents = [[1, 2, 3], [], [largest, 0], [7]]
    write_as_datatrove(tmp_path / "00000_tokens", documents, token_size)
    written = [(tmp_path / f"00000_tokens.{kind}").read_bytes() for kind in ("bin", "idx")]
    assert [hashlib.sha256(content).hexdigest() for content in written] == hashes
    file = open_token_file(str(tmp_path / "00000_tokens.bin"))
    assert file.dtype.itemsize == token_size
    assert [file.document(d).tolist() for d in range(4)] == documents
    assert ("documents", "4") in describe(file)
    assert histogram(file)
    assert ("sha256", "not known: there is no manifest that tells it") in verify(file)


def test_datatrove_files_are_merged_without_the_empty_ones(tmp_path: Path) -> None:
    """A task to which no documents came leaves an index of none."""
    for rank, documents in enumerate([[[1, 2], [3]], [], [[], [4]]]):
        write_as_datatrove(tmp_path / f"{rank:05d}_tokens", documents, 2)
    paths = sorted(str(path) for path in tmp_path.glob("*_tokens.bin"))
    notices: list[str] = []
    merged = TokenFile(merge(paths, str(tmp_path / "all"), notices=notices))
    assert [merged.document(d).tolist() for d in range(4)] == [[1, 2], [3], [], [4]]
    assert len(notices) == 1
    assert "nothing is in 1 of 3 token files" in notices[0]
    assert "00001_tokens" in notices[0]
    merged.verify()
    assert merged.manifest is None
    with pytest.raises(InputError, match=r"00000_tokens is given twice: name each file once"):
        merge([*paths, str(tmp_path / "00000_tokens.idx")], str(tmp_path / "all"))
    with pytest.raises(InputError, match="hold no tokens: leave them out"):
        merge(paths[1:2], str(tmp_path / "all"))
    (tmp_path / "00002_tokens.bin").write_bytes(b"")
    with pytest.raises(InputError, match="cut off"):
        merge(paths, str(tmp_path / "all"))


@pytest.mark.parametrize("packing", ["concat", "best_fit", "megatron"])
def test_datatrove_files_are_trained_on(
    packing: Any, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a manifest, and under names that begin with a number."""
    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.load(corpus.tokenizer)
    text = TokenFile(corpus.train)
    documents = [text.document(d).tolist() for d in range(60)]
    for rank in range(2):
        write_as_datatrove(Path(f"{rank:05d}_tokens"), documents[rank::2], 2)
    layout = RowLayout(sequence_length=16, vocab_size=600, seed=5, packing=packing, document_mask=True)
    for written in ("00000_tokens | 00001_tokens", "0.7 00000_tokens | 0.3 00001_tokens.bin"):
        mixture = open_mixture(written, tokenizer, layout, 20)
        assert {source.file.prefix for source in mixture.sources} == {"00000_tokens", "00001_tokens"}
        rows = mixture.read(0, 20)
        assert rows.tokens.shape == (20, 16)
        assert set(rows.tokens.reshape(-1).tolist()) <= {token for document in documents for token in document}
    assert open_validation("00001_tokens", tokenizer, layout).file.num_documents == 30
    assert not list(tmp_path.glob("*.json"))
