"""Documents packed whole into rows, what that costs, and the packing on the disk: made once, whatever happens."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis import _C
from megatron_iberis.data.order.best_fit import open_packing
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.rows import best_fit_source
from megatron_iberis.data.token_files.reader import TokenFile
from tests.support.token_files import TokenFileWriter

BOS, VOCAB = 7, 100_000


def write(prefix, lengths):
    """Documents of BOS and then ids of their own, so that each can be told by its tokens."""
    with TokenFileWriter(prefix, VOCAB) as writer:
        for number, length in enumerate(lengths):
            writer.add_document(([BOS] + [1000 + 100 * number + i for i in range(1, length)])[:length])
    return TokenFile(prefix)


def described_rows(lengths, row_tokens):
    """The description at the head of csrc/order/best_fit.h."""
    rows, rooms = [], []
    used = []  # rows by their last use
    for document in sorted(range(len(lengths)), key=lambda d: (-min(lengths[d], row_tokens), d)):
        length = min(lengths[document], row_tokens)
        if length == 0:
            continue
        fitting = [r for r in used if rooms[r] >= length]
        if fitting:
            row = min(reversed(fitting), key=lambda r: rooms[r])
            used.remove(row)
        else:
            row = len(rows)
            rows.append([])
            rooms.append(row_tokens)
        rows[row].append(document)
        rooms[row] -= length
        used.append(row)
    return rows, sum(rooms)


some_lengths = st.lists(st.one_of(st.integers(0, 12), st.integers(0, 300)), min_size=1, max_size=80).filter(any)


@given(lengths=some_lengths, row_tokens=st.one_of(st.integers(1, 20), st.integers(1, 9000)))
@settings(max_examples=150, deadline=None)
def test_every_document_goes_where_it_leaves_least_room(tmp_path_factory, lengths, row_tokens):
    index = write(tmp_path_factory.getbasetemp() / "packing", lengths).index
    starts, documents, cropped, padded = _C.best_fit(index, row_tokens)
    rows = [documents[a:b].tolist() for a, b in itertools.pairwise(starts)]
    assert (rows, padded) == described_rows(lengths, row_tokens)
    assert cropped == sum(max(0, length - row_tokens) for length in lengths)


def test_packing_is_nearly_full_on_documents_of_all_sizes(tmp_path):
    lengths = np.random.default_rng(1).lognormal(6, 1.2, 20_000).astype(np.int64) + 1
    with TokenFileWriter(tmp_path / "f", 10) as writer:
        writer.add_documents(np.ones(lengths.sum(), np.int64), lengths)
    rows = open_packing(TokenFile(tmp_path / "f"), 2048)
    assert rows.padded_share < 0.005
    assert rows.cropped_share == pytest.approx(np.maximum(lengths - 2049, 0).sum() / lengths.sum())


@pytest.fixture
def source(tmp_path):
    file = write(tmp_path / "f", [5, 0, 3, 30, 2, 9, 6, 1, 8])
    return best_fit_source(file, open_packing(file, 9), seed=3, vocab_size=VOCAB)


@pytest.fixture
def rows(source):
    return open_packing(source.file, 9)


def test_rows_are_whole_documents_from_their_beginning(source, rows):
    batch, seen = source.read(0, rows.num_rows), []
    order = SampleOrder(rows.num_rows, 1, seed=3, shuffle=True)
    for row, number in enumerate((order.offsets(0, rows.num_rows) % rows.num_rows).tolist()):
        documents = [source.file.document(d)[:10].tolist() for d in rows.documents_of(number)]
        text = [token for document in documents for token in document]
        assert batch.tokens[row].tolist() == (text + [0] * 10)[:9]
        assert batch.targets[row].tolist() == (text[1:] + [-1] * 10)[:9]
        assert batch.tokens[row, 0] == BOS
        seen += documents
    expected = [source.file.document(d)[:10].tolist() for d in range(9)]
    assert sorted(seen) == sorted(document for document in expected if document)


def test_documents_begin_where_the_text_says(source, rows):
    masked = best_fit_source(source.file, rows, seed=3, vocab_size=VOCAB, document_mask=True)
    batch = masked.read(0, rows.num_rows)
    begins = batch.tokens == BOS  # with which every document of the file begins
    assert (batch.starts == begins).all()
    assert batch.cu_seqlens.tolist() == [*np.flatnonzero(begins), begins.size]
    assert source.read(0, 1).cu_seqlens is None


def test_a_packed_sample_says_where_its_pieces_lie(source, rows):
    for sample in range(rows.num_rows):
        read, text = source.read(sample, 1), []
        for place in source.locate(sample):
            assert (place.file, place.last_document) == (source.file.prefix, place.document)
            document = source.file.document(place.document)[: rows.row_tokens]
            assert source.file.tokens(place.token, len(document)).tolist() == document.tolist()
            text += document.tolist()
        assert read.tokens[0].tolist() == (text + [0] * 10)[:9]


def test_padding_is_no_target(source, rows):
    targets = source.read(0, rows.num_rows).targets
    assert (targets < 0).sum() == rows.padded
    assert targets.min() == -1


def test_every_row_comes_once_an_epoch_in_another_order(source, rows):
    count = rows.num_rows
    epochs = [source.read(e * count, count).tokens.tolist() for e in range(6)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert any(epoch != epochs[0] for epoch in epochs)


def test_a_single_row_is_an_epoch(tmp_path):
    file = write(tmp_path / "f", [3, 2])
    rows = open_packing(file, 20)
    source = best_fit_source(file, rows, seed=3, vocab_size=VOCAB)
    assert rows.num_rows == 1
    assert source.read(5, 3).targets[:, :5].tolist() == [[1001, 1002, BOS, 1101, -1]] * 3


def test_a_token_outside_the_vocabulary_is_named(tmp_path):
    file = write(tmp_path / "f", [3, 2])
    with pytest.raises(ValueError, match=r"f\.bin holds token 1101 and the model knows 500: .*tokenizer"):
        best_fit_source(file, open_packing(file, 20), 3, vocab_size=500).read(0, 1)


def rows_files(folder):
    return sorted(path.name for path in folder.rglob("*best_fit*"))


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)


def test_the_packing_is_kept_and_its_name_tells_the_text(tmp_path, monkeypatch):
    file = write(tmp_path / "f", [5, 3, 30, 2])
    first = open_packing(file, 9)
    (name,) = rows_files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(_C, "best_fit", None)  # it is read, not made again
        assert same(open_packing(file, 9), first)
    open_packing(file, 10)
    assert len(rows_files(tmp_path)) == 2
    open_packing(write(tmp_path / "f", [5, 3, 30, 1]), 9)
    assert len(rows_files(tmp_path)) == 3
    assert name in rows_files(tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:10], lambda data: b"X" + data[1:]])
def test_a_damaged_packing_is_made_again(tmp_path, damage):
    file = write(tmp_path / "f", [5, 3, 30, 2])
    first = open_packing(file, 9)
    path = tmp_path / rows_files(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert same(open_packing(file, 9), first)
    assert path.read_bytes() == whole


PROGRAM = """
import sys
from megatron_iberis import _C
from megatron_iberis.data.order import best_fit as packing
from megatron_iberis.data.order import stored_index
from megatron_iberis.data.token_files.reader import TokenFile
write = stored_index._write
stored_index._write = lambda *a: (print("made"), write(*a))[1]
file = TokenFile(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
rows = packing.open_packing(file, 100)
print(rows.num_rows, rows.cropped, rows.padded, int(rows.documents[-1]))
"""


def test_of_four_processes_at_once_one_makes_it(tmp_path):
    lengths = np.random.default_rng(2).integers(1, 120, 300_000)
    with TokenFileWriter(tmp_path / "f", 10) as writer:
        writer.add_documents(np.ones(lengths.sum(), np.int64), lengths)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "f")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum("made" in lines for lines in said) == 1
    assert len({lines[-1] for lines in said}) == 1
    assert len(rows_files(tmp_path)) == 1  # and no temporary file


def read_only(folder):
    """Makes a folder read-only, for root too; returns what undoes it, or None where that cannot be done."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        return lambda: folder.chmod(0o755)
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount or subprocess.run([mount, "--bind", folder, folder], capture_output=True).returncode:
        return None
    subprocess.run([mount, "-o", "remount,ro,bind", folder], check=True)
    return lambda: subprocess.run([umount, folder], check=True)


def test_a_read_only_folder_has_its_packing_in_the_cache(tmp_path, monkeypatch):
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    file = write(data / "f", [5, 3, 30, 2])
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    undo = read_only(data)
    if undo is None:
        pytest.skip("this machine does not allow a mount")
    try:
        first = open_packing(file, 9)
        assert rows_files(data) == []
        assert len(rows_files(cache / "megatron_iberis")) == 1
        monkeypatch.setattr(_C, "best_fit", None)
        assert same(open_packing(file, 9), first)
    finally:
        undo()


def test_no_home_is_needed(tmp_path, monkeypatch):
    """A container whose user has a number and no name has no home folder."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "data").mkdir()
    file = write(tmp_path / "data" / "f", [5, 3, 30, 2])
    beside = open_packing(file, 9)
    assert len(rows_files(tmp_path / "data")) == 1
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "f", [5, 3, 30, 2])
    undo = read_only(tmp_path / "data")
    if undo is None:
        pytest.skip("this machine does not allow a mount")
    try:
        assert same(open_packing(file, 9), beside)
        assert len(rows_files(tmp_path / "temporary" / f"cache-{os.getuid()}" / "megatron_iberis")) == 1
    finally:
        undo()


def test_nowhere_to_write_is_named(tmp_path, monkeypatch):
    file = write(tmp_path / "f", [5, 3])
    (tmp_path / "cache").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ValueError, match=r"to neither .*No space left.* nor .*: free space, or set XDG_CACHE_HOME"):
        open_packing(file, 9)
    assert rows_files(tmp_path) == []


def test_rows_of_impossible_size_are_refused(tmp_path):
    index = write(tmp_path / "f", [5, 3]).index
    for size in (0, -1, 2**31):
        with pytest.raises(ValueError, match="give 1 to 2,147,483,647"):
            _C.best_fit(index, size)
