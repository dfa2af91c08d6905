"""Token files are Megatron's: the same bytes, readable both ways."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from megatron_iberis.data.token_files.reader import TokenFile
from tests.support.token_files import TokenFileWriter

VOCAB_SIZES = {np.uint16: 65_536, np.int32: 100_000}
# Documents of sequences of tokens; empty sequences and empty documents are allowed, a file without a token is not.
documents_of_sequences = st.lists(
    st.lists(st.lists(st.integers(0, 65_535), max_size=6), max_size=4), max_size=8
).filter(lambda documents: any(sequence for document in documents for sequence in document))


def write_with_megatron(prefix, documents, dtype):
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence, dtype=torch.int64))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")


def write_with_ours(prefix, documents, dtype):
    with TokenFileWriter(prefix, VOCAB_SIZES[dtype]) as writer:
        for document in documents:
            tokens = np.array([token for sequence in document for token in sequence], np.int64)
            writer.add_document(tokens, [len(sequence) for sequence in document])


def read_bytes(prefix):
    return [open(f"{prefix}{suffix}", "rb").read() for suffix in (".bin", ".idx")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("megatron")


@pytest.mark.parametrize("dtype", VOCAB_SIZES)
@given(documents=documents_of_sequences)
@settings(max_examples=40, deadline=None)
def test_idx_bytes_equal_megatron(folder, dtype, documents):
    write_with_megatron(folder / "theirs", documents, dtype)
    write_with_ours(folder / "ours", documents, dtype)
    assert read_bytes(folder / "ours") == read_bytes(folder / "theirs")


def test_idx_bytes_equal_megatron_beyond_every_buffer(tmp_path):
    """More documents than the writer holds in memory, one sequence each, added in unequal portions."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 4, 300_000)
    tokens = rng.integers(0, 65_536, lengths.sum())
    builder = IndexedDatasetBuilder(f"{tmp_path}/theirs.bin", dtype=np.uint16)
    builder.data_file.write(tokens.astype(np.uint16).tobytes())
    builder.sequence_lengths = lengths
    builder.document_indices = list(range(len(lengths) + 1))
    builder.finalize(f"{tmp_path}/theirs.idx")
    with TokenFileWriter(tmp_path / "ours", 65_536) as writer:
        start = 0
        for part in np.split(lengths, [1, 7, 100_000, 250_001]):
            writer.add_documents(tokens[start : start + part.sum()], part)
            start += part.sum()
    assert read_bytes(tmp_path / "ours") == read_bytes(tmp_path / "theirs")


@pytest.mark.parametrize("dtype", VOCAB_SIZES)
@given(documents=documents_of_sequences)
@settings(max_examples=20, deadline=None)
def test_megatron_reads_our_files(folder, dtype, documents):
    write_with_ours(folder / "ours", documents, dtype)
    dataset = IndexedDataset(str(folder / "ours"))
    sequences = [sequence for document in documents for sequence in document]
    assert [dataset[i].tolist() for i in range(len(dataset))] == sequences
    assert np.diff(dataset.document_indices).tolist() == [len(document) for document in documents]


@pytest.mark.parametrize("dtype", VOCAB_SIZES)
@given(documents=documents_of_sequences)
@settings(max_examples=20, deadline=None)
def test_we_read_megatron_files(folder, dtype, documents):
    write_with_megatron(folder / "theirs", documents, dtype)
    file = TokenFile(folder / "theirs")
    sequences = [sequence for document in documents for sequence in document]
    file.verify()
    assert file.dtype == dtype
    assert [file[i].tolist() for i in range(len(file))] == sequences
    assert file.lengths.tolist() == [len(sequence) for sequence in sequences]
    assert np.diff(file.document_index).tolist() == [len(document) for document in documents]
    assert file.num_documents == len(documents)
    assert file.num_tokens == sum(map(len, sequences))


def test_the_last_id_of_a_vocabulary_of_65536_is_two_bytes(tmp_path):
    """Megatron's own tool would take four bytes for it."""
    with TokenFileWriter(tmp_path / "f", 65_536) as writer:
        writer.add_document([0, 65_535])
    assert (tmp_path / "f.bin").read_bytes() == b"\x00\x00\xff\xff"
    dataset = IndexedDataset(str(tmp_path / "f"))  # unmaps the file when it goes, under the arrays that it gave
    assert dataset[0].tolist() == [0, 65_535]
