"""Reading and writing token files: what comes back, and what is said of files that cannot be used."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_iberis.data.token_files.reader import TokenFile, TokenFileWriter, token_dtype


def write(prefix, documents=((5, 6, 7), (), (8, 9)), vocab_size=100, manifest=None):
    with TokenFileWriter(prefix, vocab_size) as writer:
        for document in documents:
            writer.add_document(np.array(document, np.int64))
        writer.finalize(manifest)
    return prefix


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def cut(path, bytes_off):
    path.write_bytes(path.read_bytes()[:-bytes_off])


# Reading


def test_tokens_are_a_ring(tmp_path):
    file = TokenFile(write(tmp_path / "f"))
    ring = [5, 6, 7, 8, 9]
    for start in range(-5, 12):
        for count in (0, 1, 4, 5, 6, 13):
            expected = [ring[(start + i) % 5] for i in range(count)]
            assert file.tokens(start, count).tolist() == expected
    with pytest.raises(ValueError, match="give 0 or more"):
        file.tokens(0, -1)


def test_sequences_are_indexed_like_a_list(tmp_path):
    file = TokenFile(write(tmp_path / "f"))
    assert [sequence.tolist() for sequence in file] == [[5, 6, 7], [], [8, 9]]
    assert file[-1].tolist() == [8, 9]
    for i in (3, -4):
        with pytest.raises(IndexError, match="not one of the 3"):
            file[i]


def test_tokens_cannot_be_written_through_a_view(tmp_path):
    file = TokenFile(write(tmp_path / "f"))
    for view in (file[0], file.tokens(0, 2), file.lengths, file.document_index):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1


def test_views_outlive_the_file_object(tmp_path):
    lengths = TokenFile(write(tmp_path / "f")).lengths
    tokens = TokenFile(tmp_path / "f")[0]
    assert lengths.tolist() == [3, 0, 2]
    assert tokens.tolist() == [5, 6, 7]


@given(lengths=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1).filter(lambda d: any(map(any, d))))
def test_document_of_every_token(tmp_path_factory, lengths):
    prefix = tmp_path_factory.getbasetemp() / "documents"
    with TokenFileWriter(prefix, 10) as writer:
        for document in lengths:
            writer.add_document(np.ones(sum(document), np.int64), document)
    file = TokenFile(prefix)
    expected = np.repeat(np.arange(len(lengths)), [sum(document) for document in lengths])
    offsets = np.arange(-file.num_tokens, file.num_tokens).reshape(2, -1)
    np.testing.assert_array_equal(file.document_of(offsets), [expected, expected])


def test_manifest_round_trip(tmp_path):
    manifest = {"tokenizer": "青空", "documents": 3}
    assert TokenFile(write(tmp_path / "with", manifest=manifest)).manifest == manifest
    assert TokenFile(write(tmp_path / "without")).manifest is None


def test_dtype_follows_the_vocabulary():
    assert [token_dtype(size) for size in (1, 65_536, 65_537, 2**31)] == [np.uint16] * 2 + [np.int32] * 2
    for size in (0, -1, 2**31 + 1):
        with pytest.raises(ValueError, match="cannot be stored"):
            token_dtype(size)


# Files that cannot be used


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_missing_file_is_named(tmp_path, suffix):
    prefix = write(tmp_path / "f")
    (tmp_path / f"f{suffix}").unlink()
    with pytest.raises(ValueError, match=rf"there is no .*f\{suffix}.*data_tools/preprocess.py"):
        TokenFile(prefix)


def test_cut_off_bin_is_named(tmp_path):
    prefix = write(tmp_path / "f")
    cut(tmp_path / "f.bin", 3)
    with pytest.raises(ValueError, match=r"f\.bin is cut off: 3 of 10 bytes are missing.*preprocess"):
        TokenFile(prefix)


def test_cut_off_idx_is_named(tmp_path):
    prefix = write(tmp_path / "f")
    cut(tmp_path / "f.idx", 5)
    with pytest.raises(ValueError, match=r"f\.idx is cut off or damaged: 5 of 102 bytes are missing.*preprocess"):
        TokenFile(prefix)
    (tmp_path / "f.idx").write_bytes(b"MMIDIDX")
    with pytest.raises(ValueError, match=r"f\.idx is cut off: it holds 7 bytes"):
        TokenFile(prefix)


def test_files_of_two_runs_are_not_mixed(tmp_path):
    prefix = write(tmp_path / "f")
    with open(tmp_path / "f.bin", "ab") as stream:
        stream.write(b"more")
    with pytest.raises(ValueError, match=r"4 bytes more than .*f\.idx tells of"):
        TokenFile(prefix)


@pytest.mark.parametrize(
    ("position", "value", "sentence"),
    [
        (0, b"X", "does not start with MMIDIDX"),
        (9, b"\x02", "has version 2 where 1 is known"),
        (17, b"\x07", "dtype code 7 where 8"),
        (18, b"\xff" * 8, "is damaged: no file can hold 18446744073709551615 sequences"),
        (26, b"\x00" * 8, "is damaged: no file can hold"),
        (94, b"\x00", "its documents do not cover its sequences"),
        (62, b"\x01", "its first or last sequence lies outside"),
    ],
)
def test_damaged_idx_is_named(tmp_path, position, value, sentence):
    prefix = write(tmp_path / "f")
    data = bytearray((tmp_path / "f.idx").read_bytes())
    data[position : position + len(value)] = value
    (tmp_path / "f.idx").write_bytes(data)
    with pytest.raises(ValueError, match=rf"f\.idx .*{sentence}"):
        TokenFile(prefix)


def test_empty_files_are_named(tmp_path):
    (tmp_path / "f.bin").touch()
    (tmp_path / "f.idx").touch()
    with pytest.raises(ValueError, match=r"f\.idx is empty"):
        TokenFile(tmp_path / "f")
    write(tmp_path / "g")
    header = bytearray((tmp_path / "g.idx").read_bytes()[:34])
    header[18:34] = (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    (tmp_path / "f.idx").write_bytes(header + bytes(8))
    with pytest.raises(ValueError, match="hold no tokens"):
        TokenFile(tmp_path / "f")


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff"])
def test_damaged_manifest_is_named(tmp_path, text):
    prefix = write(tmp_path / "f")
    (tmp_path / "f.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"f\.json .*preprocess"):
        _ = TokenFile(prefix).manifest


# Writing


def test_nothing_has_a_final_name_before_the_end(tmp_path):
    write(tmp_path / "f", documents=[(1,)], manifest={"run": 1})
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    with TokenFileWriter(tmp_path / "f", 100) as writer:
        writer.add_document([2, 3])
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert names(tmp_path) == ["f.bin", "f.idx"]  # the older manifest tells of other tokens
    assert TokenFile(tmp_path / "f")[0].tolist() == [2, 3]


def test_an_error_leaves_nothing(tmp_path):
    def interrupted():
        with TokenFileWriter(tmp_path / "f", 100) as writer:
            writer.add_document([1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_a_closed_writer_says_so(tmp_path):
    with TokenFileWriter(tmp_path / "f", 100) as writer:
        writer.add_document([1])
    for use in (lambda: writer.add_document([1]), writer.finalize):
        with pytest.raises(ValueError, match="is closed: start a new one"):
            use()
    writer.abort()
    assert names(tmp_path) == ["f.bin", "f.idx"]


def test_a_manifest_that_is_not_json_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write(tmp_path / "f", manifest={"a": object()})
    assert names(tmp_path) == []


def test_no_tokens_are_no_token_file(tmp_path):
    with pytest.raises(ValueError, match="there are no tokens to write"):
        write(tmp_path / "f", documents=[()])
    assert names(tmp_path) == []


@pytest.mark.parametrize("token", [-1, 100, 65_536 + 5])
def test_ids_outside_the_vocabulary_are_refused(tmp_path, token):
    with TokenFileWriter(tmp_path / "f", 100) as writer:
        writer.add_document([1])
        with pytest.raises(ValueError, match=f"token {token} is outside the vocabulary of 100"):
            writer.add_document([2, token])
    assert [sequence.tolist() for sequence in TokenFile(tmp_path / "f")] == [[1]]


@pytest.mark.parametrize(
    ("tokens", "lengths", "sentence"),
    [
        ([1, 2, 3], [1, 1], "sum up to 2 where there are 3"),
        ([1, 2, 3], [4, -1], "a sequence of -1 tokens"),
        ([1.0, 2.0], [2], "one-dimensional array of integers, not float64"),
        ([[1, 2]], [2], "one-dimensional array of integers"),
        ([1, 2], [[2]], "one-dimensional array of integers"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, tokens, lengths, sentence):
    with TokenFileWriter(tmp_path / "f", 100) as writer:
        writer.add_document([7])
        with pytest.raises(ValueError, match=sentence):
            writer.add_documents(tokens, lengths)
    assert TokenFile(tmp_path / "f").tokens(0, 1).tolist() == [7]


def test_folder_is_made_and_a_file_in_its_place_is_named(tmp_path):
    assert TokenFile(write(tmp_path / "a" / "b" / "f")).num_tokens == 5
    with pytest.raises(ValueError, match=r"cannot write .*\(.*\): check the path"):
        write(tmp_path / "a" / "b" / "f.bin" / "f")


def test_the_writer_needs_no_more_memory_for_more_documents(tmp_path):
    """Three million documents add less than 16 MB; lists of their lengths would add far more than 100 MB."""
    program = f"""
import json, resource, numpy as np
from megatron_iberis.data.token_files.reader import TokenFileWriter
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with TokenFileWriter({str(tmp_path / "f")!r}, 100) as writer:
    part = np.ones(10_000, np.int64)
    writer.add_documents(part, part)
    before = peak()
    for _ in range(300):
        writer.add_documents(part, part)
print(json.dumps(peak() - before))
"""
    grown_kb = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    assert grown_kb < 16_000
