"""Megatron's own sample index: equal to megatron-core's helper, where that was compiled, and to its description."""

import threading
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megatron_iberis._C import megatron_sample_index
from megatron_iberis.data.order.megatron import open_megatron_order
from megatron_iberis.data.rows import megatron_source
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from tests.support.token_files import TokenFileWriter

helpers = pytest.importorskip("megatron.core.datasets.helpers_cpp", reason="megatron-core without its C++ helper")


def megatron(lengths, order, t):
    """What megatron-core builds for documents in this order, all epochs taken as one."""
    tokens = int(lengths[order].sum(dtype=np.int64))
    return helpers.build_sample_idx_int64(lengths, order, t, 1, tokens, True, 1)


def described(lengths, order, t):
    """The description at the head of csrc/order/megatron_order.h, for any number of tokens."""
    ends = np.cumsum(lengths[order], dtype=np.int64)
    tokens = np.arange((ends[-1] - 1) // t + 1, dtype=np.int64) * t
    documents = np.searchsorted(ends, tokens, side="right")
    rows = np.stack([documents, tokens - (ends - lengths[order])[documents]], axis=1)
    rows[0] = 0
    return rows


lengths_and_order = st.lists(st.integers(0, 40), min_size=1, max_size=30).flatmap(
    lambda lengths: st.tuples(st.just(lengths), st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=90))
)


@given(case=lengths_and_order, t=st.integers(1, 50))
@example(case=([0, 3, 0, 4], [0, 0, 1, 2, 3, 1, 0]), t=2)
@settings(max_examples=400, deadline=None)
def test_every_sample_begins_where_megatron_has_it(case, t):
    lengths, order = (np.array(numbers, np.int32) for numbers in case)
    if lengths[order].sum() <= t:
        with pytest.raises(ValueError, match="too few for one sequence"):
            megatron_sample_index(lengths, order, t)
        return
    found = megatron_sample_index(lengths, order, t)
    np.testing.assert_array_equal(found, megatron(lengths, order, t))
    np.testing.assert_array_equal(found, described(lengths, order, t))


@pytest.mark.parametrize(("documents", "mean", "t"), [(600_000, 90, 64), (1_000_000, 3, 2048), (300_000, 1, 1)])
def test_several_threads_write_what_one_would(documents, mean, t):
    rng = np.random.default_rng(documents)
    lengths = rng.poisson(mean, documents).astype(np.int32)
    order = np.concatenate([rng.permutation(documents) for _ in range(2)]).astype(np.int32)
    found = megatron_sample_index(lengths, order, t)
    np.testing.assert_array_equal(found, megatron(lengths, order, t))
    np.testing.assert_array_equal(found, megatron_sample_index(lengths, order, t))


def test_tokens_beyond_32_bits():
    """6 G tokens in documents of up to 2^31 - 1, lengths only."""
    lengths = np.array([2**31 - 1, 5, 2**31 - 1, 2**30, 7], np.int32)
    order = np.array([2, 4, 0, 3, 1, 2], np.int32)
    found = megatron_sample_index(lengths, order, 2048)
    assert len(found) > 2**31 * 3 // 2048
    np.testing.assert_array_equal(found, megatron(lengths, order, 2048))
    np.testing.assert_array_equal(found, described(lengths, order, 2048))


def test_other_python_threads_run_meanwhile():
    lengths = np.full(8_000_000, 2, np.int32)
    order = np.arange(len(lengths), dtype=np.int32)
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.perf_counter()
    megatron_sample_index(lengths, order, 1)
    ended = time.perf_counter()
    done.set()
    thread.join()
    assert sum(started < when < ended for when in ticks) >= 3


@pytest.mark.parametrize(
    ("lengths", "order", "t", "sentence"),
    [
        ([3, 4], [0, 2], 2, "not one of the 2"),
        ([3, 4], [0, -1], 2, "not one of the 2"),
        ([3, -4], [0, 1], 2, "of negative length"),
        ([3, 4], [0, 1], 0, "give 1 or more"),
        ([3, 4], [], 2, "hold 0 tokens, too few"),
        ([3, 4], [0, 1], 7, "hold 7 tokens, too few for one sequence of 7"),
    ],
)
def test_what_cannot_be_ordered_is_named(lengths, order, t, sentence):
    with pytest.raises(ValueError, match=sentence):
        megatron_sample_index(np.array(lengths, np.int32), np.array(order, np.int32), t)


def gpt_dataset(prefix, length, seed, num_samples, cache):
    """megatron-core's own dataset over the whole file."""
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split
    from megatron.core.tokenizers.text.libraries.null_tokenizer import NullTokenizer

    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=length,
        blend=([str(prefix)], None),
        split="1,0,0",
        path_to_cache=str(cache),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        tokenizer=NullTokenizer(vocab_size=70_000),
    )
    indexed = IndexedDataset(str(prefix))
    every = np.arange(len(indexed), dtype=np.int32)
    return GPTDataset(indexed, str(prefix), every, num_samples, Split.train, config), indexed


@pytest.mark.parametrize("num_samples", [1, 20, 55, 60, 119, 125, 300])  # of 59.4 an epoch: last epochs of all sizes
def test_samples_are_those_of_megatrons_own_dataset(tmp_path, num_samples):
    lengths = np.random.default_rng(5).integers(0, 30, 80)
    lengths[:3] = 0, 100, 1
    total, length = int(lengths.sum()), 20
    with TokenFileWriter(tmp_path / "f", 70_000) as writer:
        writer.add_documents(np.arange(total), lengths)
    file = TokenFile(tmp_path / "f")
    theirs, keep_open = gpt_dataset(tmp_path / "f", length, 7, num_samples, tmp_path / "cache")
    ours = megatron_source(file, open_megatron_order(file, length, 7, num_samples), 70_000)
    assert len(keep_open) == len(lengths)
    batch = ours.read(0, num_samples)
    for row in range(num_samples):
        sample = theirs[row]
        assert batch.tokens[row].tolist() == sample["tokens"].tolist()
        assert batch.targets[row].tolist() == sample["labels"].tolist()
        # the token ids are the places in the file
        places = ours.locate(row)
        assert places[0].token == batch.tokens[row][0]
        ends = file.document_of([place.token for place in places])
        assert [(p.document, p.last_document) for p in places] == [(d, d) for d in ends.tolist()]


def test_a_file_too_short_for_a_sample_is_named(tmp_path):
    with TokenFileWriter(tmp_path / "f", 70_000) as writer:
        writer.add_documents(np.arange(20), [20])
    with pytest.raises(InputError, match=r"holds 20 tokens, too few .* of 20 .*lower --model.sequence_length"):
        open_megatron_order(TokenFile(tmp_path / "f"), 20, 1, 4)


def test_more_samples_than_the_order_was_made_for_are_refused(tmp_path):
    with TokenFileWriter(tmp_path / "f", 70_000) as writer:
        writer.add_documents(np.arange(30), [10, 20])
    order = open_megatron_order(TokenFile(tmp_path / "f"), 5, 1, 4)
    with pytest.raises(ValueError, match=r"made for 5 samples, and number 5 was asked for: make it for as many"):
        order.pieces(5)
