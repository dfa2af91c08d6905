"""Batches depend on the step alone: not on the ranks, not on what was read before, not on the thread that reads."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_iberis.data.batches import Batch, micro_batches, prefetch
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.plan import BatchPlan
from megatron_iberis.data.rows import ConcatSource, Place
from megatron_iberis.data.token_files.reader import TokenFile
from tests.support.token_files import TokenFileWriter

VOCAB, N, T = 1000, 500, 7


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("batches") / "f"
    with TokenFileWriter(prefix, VOCAB) as writer:
        writer.add_documents(np.arange(N), [100, 150, 250])
    return TokenFile(prefix)


@pytest.fixture(scope="module")
def source(file):
    return ConcatSource(file, SampleOrder(N, T, seed=3, shuffle=True), VOCAB)


def plans(global_batch):
    """Every way to share out a batch of this size."""
    for ranks in range(1, global_batch + 1):
        for micro_batch in range(1, global_batch + 1):
            if global_batch % (ranks * micro_batch) == 0:
                yield [BatchPlan(global_batch, micro_batch, rank, ranks) for rank in range(ranks)]


@given(global_batch=st.integers(1, 36), step=st.integers(0, 10**12))
def test_sample_ids_do_not_depend_on_data_parallel_size(global_batch, step):
    for ranks in plans(global_batch):
        numbers = [
            plan.first_sample(step, index) + row
            for plan in ranks
            for index in range(plan.accumulation)
            for row in range(plan.micro_batch)
        ]
        assert sorted(numbers) == list(range(step * global_batch, (step + 1) * global_batch))


def test_rows_are_the_text_and_targets_the_next_tokens(source):
    batch = Batch.of(source.read(60, 90))  # beyond the first epoch of 71 samples and round the end of the file
    offsets = source.order.offsets(60, 90)
    assert batch.tokens.tolist() == [[(o + i) % N for i in range(T)] for o in offsets]
    assert batch.targets.tolist() == [[(o + i + 1) % N for i in range(T)] for o in offsets]
    for tensor in (batch.tokens, batch.targets):
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
        assert tensor.shape == (90, T)
    assert max(offsets) + T > N


def test_an_epoch_trains_every_token_once(source):
    batch = source.read(0, source.order.samples_per_epoch)
    used = np.bincount(batch.targets.reshape(-1), minlength=N)
    assert used.max() == 1
    assert (used == 0).sum() == N % T


def test_documents_are_cumulative_lengths_of_what_lies_in_the_rows(file, source):
    assert Batch.of(source.read(0, 3)).documents is None
    masked = ConcatSource(file, source.order, VOCAB, document_mask=True)
    batch = Batch.of(masked.read(0, 71))
    begins = {0, 100, 250}
    tokens = batch.tokens.flatten().tolist()  # the token ids are the places in the file
    expected = [place for place, token in enumerate(tokens) if place % T == 0 or token in begins]
    assert batch.documents.tolist() == [*expected, 71 * T]
    assert batch.documents.dtype == torch.int32


def test_a_sample_says_where_it_lies(file, source):
    for sample in (0, 5, 100):
        start = source.read(sample, 1).tokens[0, 0]
        first, last = file.document_of([start, start + T]).tolist()
        assert source.locate(sample) == [Place(file.prefix, start, first, last)]


def test_a_file_of_one_document_follows_upon_itself_as_another(tmp_path):
    with TokenFileWriter(tmp_path / "f", VOCAB) as writer:
        writer.add_documents(np.arange(5), [5])
    one = TokenFile(tmp_path / "f")
    batch = ConcatSource(one, SampleOrder(5, 4, seed=1, shuffle=True), VOCAB, document_mask=True).read(0, 8)
    assert batch.starts.tolist() == [[t == 0 or token == 0 for t, token in enumerate(row)] for row in batch.tokens]


def test_restart_in_the_middle_continues_the_same(source):
    plan = BatchPlan(global_batch=12, micro_batch=2, rank=1, ranks=3)
    straight = list(micro_batches(source, plan, 0, 10))
    restarted = [*micro_batches(source, plan, 0, 4), *micro_batches(source, plan, 4, 10)]
    assert len(straight) == 20
    for one, other in zip(straight, restarted, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.targets, other.targets)


def test_prefetched_batches_are_the_same(source):
    plan = BatchPlan(global_batch=4, micro_batch=2, rank=0, ranks=1)
    plain = micro_batches(source, plan, 5, 15)
    for one, other in zip(plain, prefetch(micro_batches(source, plan, 5, 15)), strict=True):
        assert torch.equal(one.targets, other.targets)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_prefetch_reads_no_further_than_its_depth():
    made = []
    items = prefetch((made.append(i) or i for i in range(100)), depth=3)
    assert next(items) == 0
    time.sleep(0.1)
    assert 4 <= len(made) <= 5  # one taken, three waiting, one in the hand
    items.close()
    assert threads() == []


def test_prefetch_raises_what_the_reading_raised_in_its_place():
    def reading():
        yield 1
        yield 2
        raise ValueError("the disk is gone")

    items = prefetch(reading())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="the disk is gone"):
        next(items)
    assert threads() == []


def test_prefetch_ends_with_its_consumer():
    def consume():
        for item in prefetch(iter(range(1000))):
            if item == 3:
                return

    consume()
    assert threads() == []


def test_token_file_of_another_vocabulary_is_named(file):
    source = ConcatSource(file, SampleOrder(N, T, 3, shuffle=False), vocab_size=490)
    source.read(0, 60)
    with pytest.raises(ValueError, match=r"f\.bin holds token 490 and the model knows 490: .*tokenizer"):
        source.read(0, 70)


def test_order_of_another_file_is_refused(file):
    with pytest.raises(ValueError, match="make the order from the file"):
        ConcatSource(file, SampleOrder(N + 1, T, 3, shuffle=True), VOCAB)


def test_batch_that_does_not_divide_is_named():
    with pytest.raises(
        ValueError, match=r"10 sequences cannot be split over 3 data-parallel ranks of 2.*multiple of 6"
    ):
        BatchPlan(global_batch=10, micro_batch=2, rank=0, ranks=3)
    for wrong in [(0, 1, 0, 1), (4, 0, 0, 1), (4, 1, 1, 1), (4, 1, -1, 1)]:
        with pytest.raises(ValueError, match="is not a plan"):
            BatchPlan(*wrong)
