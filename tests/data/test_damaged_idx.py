"""The reader of .idx files takes them as hostile: any bytes give a ValueError or an index that holds together."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_iberis import _C

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
    """What the ValueError says that `use` raises, None when it raises none; other exceptions go through."""
    try:
        use()
    except ValueError as error:
        return str(error)
    return None


def use_in_every_way(path):
    """Whether the index held together."""
    if complaint(lambda: _C.IndexReader(path)):
        return False
    reader = _C.IndexReader(path)
    last = reader.num_tokens - 1
    probes = [0, 1, last // 3, last // 2, last, last + 1, -1, 2**63 - 1, -(2**63)]
    for use in [
        *(lambda token=token: reader.find(token) for token in probes),
        *(lambda i=i: reader.sequence(i) for i in range(reader.num_sequences)),
        lambda: reader.documents_of(np.array(probes[:5])),
    ]:
        assert "f.idx" in (complaint(use) or "f.idx")
    if fault := complaint(reader.verify):
        assert "is damaged" in fault
        return False
    lengths = reader.lengths.astype(np.int64)
    starts = reader.offsets // (2 if reader.dtype_code == 8 else 4)
    assert reader.num_tokens == lengths.sum()
    for token in probes[:5] if reader.num_tokens else []:
        sequence, position = reader.find(token)
        assert 0 <= position < lengths[sequence]
        assert starts[sequence] + position == token
    return True


def test_the_undamaged_index_holds_together(path, valid):
    path.write_bytes(valid)
    assert use_in_every_way(path)
    assert _C.IndexReader(path).lengths.tolist() == LENGTHS


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
    with pytest.raises(ValueError, match="is not a file"):
        _C.IndexReader(tmp_path)
    with pytest.raises(ValueError, match="No such file"):
        _C.IndexReader(tmp_path / "none.idx")
