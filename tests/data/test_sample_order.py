"""Samples without an index: every token once an epoch, any sample in constant time, the same order everywhere."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_iberis._C import permute_range
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.errors import InputError

MASK = 2**64 - 1
G = 0x9E3779B97F4A7C15
seeds = st.integers(0, MASK)
# (N, T) with N > T
small = st.integers(1, 60).flatmap(lambda t: st.tuples(st.integers(t + 1, 400), st.just(t)))
large = st.integers(1, 2**61).flatmap(lambda t: st.tuples(st.integers(t + 1, 2**62), st.just(t)))


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def described_offset(sample, n, t, seed):
    """The description at the head of csrc/order/samples.h, written once more without overflow."""

    def key(purpose):
        return mix((mix((mix((seed + G) & MASK) + epoch + G) & MASK) + purpose + G) & MASK)

    epoch, j = divmod(sample, n // t)
    return (key(0) % n + permute_range(j, 1, n // t, key(1)).item() * t) % n


@given(size=small, seed=seeds, epoch=st.integers(0, 5), shuffle=st.booleans())
def test_every_token_is_used_once_an_epoch(size, seed, epoch, shuffle):
    """As a target: all of them but N mod T, none twice."""
    n, t = size
    order = SampleOrder(n, t, seed, shuffle)
    offsets = order.offsets(epoch * order.samples_per_epoch, order.samples_per_epoch)
    targets = (offsets[:, None] + np.arange(1, t + 1)) % n
    used = np.bincount(targets.reshape(-1), minlength=n)
    assert used.max() == 1
    assert (used == 0).sum() == n % t


@given(size=large, seed=seeds, sample=st.integers(0, 2**63 - 20), count=st.integers(0, 4))
def test_offsets_equal_their_description(size, seed, sample, count):
    n, t = size
    expected = [described_offset(sample + i, n, t, seed) for i in range(count)]
    assert SampleOrder(n, t, seed, shuffle=True).offsets(sample, count).tolist() == expected


@given(size=small, seed=seeds, first=st.integers(0, 1000), counts=st.lists(st.integers(0, 30), max_size=5))
def test_any_sample_is_found_without_the_ones_before(size, seed, first, counts):
    order = SampleOrder(*size, seed, shuffle=True)
    parts, start = [], first
    for count in counts:
        parts.append(order.offsets(start, count))
        start += count
    assert np.array_equal(order.offsets(first, start - first), np.concatenate([[], *parts]))


def test_without_shuffling_the_samples_follow_the_file():
    order = SampleOrder(11, 3, seed=5, shuffle=False)
    assert order.samples_per_epoch == 3
    assert order.offsets(0, 7).tolist() == [0, 3, 6, 0, 3, 6, 0]
    assert order.offsets(0, 7).tolist() == SampleOrder(11, 3, seed=6, shuffle=False).offsets(0, 7).tolist()


def test_epochs_and_seeds_differ_in_order_and_in_borders():
    n, t = 100_003, 10
    order = SampleOrder(n, t, 1, shuffle=True)
    epochs = [order.offsets(e * order.samples_per_epoch, order.samples_per_epoch) for e in range(3)]
    epochs.append(SampleOrder(n, t, 2, shuffle=True).offsets(0, n // t))
    for i, one in enumerate(epochs):
        for other in epochs[:i]:
            assert (one == other).mean() < 0.01
    assert len({int(epoch.min()) for epoch in epochs}) > 1  # the first border in the file


def test_sample_order_never_changes():
    """A change here makes every run unrepeatable: do not touch these numbers."""
    assert SampleOrder(1_000_000, 2048, 42, shuffle=True).offsets(0, 5).tolist() == [
        221702,
        111110,
        743942,
        825862,
        870918,
    ]
    assert SampleOrder(1_000_000, 2048, 42, shuffle=True).offsets(487, 3).tolist() == [688646, 803209, 647561]
    far = SampleOrder(2**62, 2**31, 2**64 - 1, shuffle=True).offsets(2**63 - 2, 1)
    assert far.tolist() == [2233354276056816345]


def test_the_billionth_sample_costs_what_the_first_does():
    order = SampleOrder(10**15, 2048, 1, shuffle=True)
    started = time.perf_counter()
    order.offsets(10**18, 10_000)
    assert time.perf_counter() - started < 0.5  # measured: under 2 ms


@pytest.mark.parametrize(("n", "t"), [(2048, 2048), (0, 1), (10, 2048)])
def test_a_file_too_short_is_named(n, t):
    with pytest.raises(
        InputError, match=rf"holds {n:,} tokens.* one sequence of {t:,} .*lower --model.sequence_length or add text"
    ):
        SampleOrder(n, t, 1, shuffle=True)


@pytest.mark.parametrize("t", [0, -3])
def test_impossible_lengths_are_refused(t):
    with pytest.raises(ValueError, match="give 1 or more"):
        SampleOrder(100, t, 1, shuffle=True)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        SampleOrder(100, 10, seed, shuffle=True)


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, -1), (2**63 - 1, 1)])
def test_impossible_samples_are_refused(first, count):
    with pytest.raises(ValueError, match="give numbers from 0"):
        SampleOrder(100, 10, 1, shuffle=True).offsets(first, count)
