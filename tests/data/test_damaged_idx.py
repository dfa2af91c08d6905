"""The reader of .idx files takes them as hostile: any bytes give an InputError or an index that holds together."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_iberis import _C
from megatron_iberis.errors import InputError

LENGTHS = [3, 0, 5, 1, 4]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "f.idx"


@pytest.fixture(scope="module")
def valid(path):
    writer = _C.IndexWriter(path, 8)
    writer.add(np.array(LENGTHS[:3]))
    writer.add_document(np.array(LENGTHS[3:]))
    writer.finish()
    return path.read_bytes()


def complaint(use):
    """What the InputError says that `use` raises, None when it raises none; other exceptions go through."""
    try:
        use()
    except InputError as error:
        return str(error)
    return None


def open_index(path):
    return _C.IndexReader(path, fix="copy it again.")


def assert_names_file_and_fix(fault):
    assert fault is None or ("f.idx" in fault and fault.endswith(": copy it again."))


def use_in_every_way(path):
    """Whether the index held together."""
    if fault := complaint(lambda: open_index(path)):
        assert_names_file_and_fix(fault)
        return False
    reader = open_index(path)
    last = reader.num_tokens - 1
    inside = [token for token in (0, 1, last // 3, last // 2, last) if 0 <= token <= last]
    for outside in (-1, last + 1, 2**63 - 1, -(2**63)):
        with pytest.raises(ValueError, match="is not one of the"):
            reader.documents_of(np.array([outside]))
    for use in [
        *(lambda token=token: reader.documents_of(np.array([token])) for token in inside),
        *(lambda i=i: reader.sequence(i) for i in range(reader.num_sequences)),
    ]:
        assert_names_file_and_fix(complaint(use))
    if fault := complaint(reader.verify):
        assert "is damaged" in fault
        return False
    sequences = [reader.sequence(i) for i in range(reader.num_sequences)]
    assert [length for _, length in sequences] == reader.lengths.tolist()
    assert reader.num_tokens == sum(reader.lengths.tolist())
    for token, document in zip(inside, reader.documents_of(np.array(inside, np.int64)).tolist(), strict=True):
        own = range(*reader.document_index[document : document + 2].tolist())
        assert any(first <= token < first + length for first, length in (sequences[i] for i in own))
    return True


def test_the_undamaged_index_holds_together(path, valid):
    path.write_bytes(valid)
    assert use_in_every_way(path)
    assert open_index(path).lengths.tolist() == LENGTHS


@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=6))
@settings(max_examples=400, deadline=None)
def test_damaged_idx_never_crashes(path, valid, flips):
    data = bytearray(valid)
    for position, change in flips:
        data[position % len(data)] ^= change
    path.write_bytes(data)
    use_in_every_way(path)


@given(kept=st.integers(0, 10_000), tail=st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_cut_off_idx_never_crashes(path, valid, kept, tail):
    data = valid[: kept % len(valid)] + tail
    path.write_bytes(data)
    use_in_every_way(path)


numbers = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 8), st.integers(2**58 - 2, 2**58 + 2))


@given(sequences=numbers, documents=numbers, rest=st.binary(max_size=200))
@example(sequences=2**64 - 1, documents=1, rest=b"")
@example(sequences=0, documents=2**61, rest=b"")
@example(sequences=(2**64 - 34) // 12 + 1, documents=1, rest=bytes(8))
@settings(max_examples=200, deadline=None)
def test_hostile_counts_never_crash(path, valid, sequences, documents, rest):
    path.write_bytes(valid[:18] + sequences.to_bytes(8, "little") + documents.to_bytes(8, "little") + rest)
    use_in_every_way(path)


@given(data=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_file_never_crashes(path, data):
    path.write_bytes(data)
    assert not use_in_every_way(path)


def test_every_flipped_bit_shows(path, valid):
    """But for other borders between documents, and another length at the end, which disagrees with the .bin."""
    last_length = 34 + 4 * (len(LENGTHS) - 1)
    documents = len(valid) - 8 * 5
    for position in range(documents):
        data = bytearray(valid)
        data[position] ^= 0x80
        path.write_bytes(data)
        assert not use_in_every_way(path) or last_length <= position < last_length + 4


def test_a_folder_is_not_an_index(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        open_index(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        open_index(tmp_path / "none.idx")


def test_a_name_that_is_no_unicode_is_told_as_it_is(tmp_path, valid):
    """Both ways in which C++ tells the name of a file."""
    name = os.fsdecode(b"\xff.idx")
    (tmp_path / name).write_bytes(valid[:-1])
    with pytest.raises(InputError, match=f"{name} is cut off"):
        open_index(tmp_path / name)
    with pytest.raises(NotADirectoryError) as caught:
        _C.IndexWriter(tmp_path / name / "f.idx", 8)
    assert caught.value.filename == str(tmp_path / name / "f.idx")
