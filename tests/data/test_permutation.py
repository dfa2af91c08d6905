"""The keyed permutation that orders samples: it is one, it looks random, and it never changes."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_iberis._C import permute_range

MASK = 2**64 - 1
keys = st.integers(0, MASK)


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_mix_is_splitmix64():
    """The published first outputs of SplitMix64 started at 0."""
    assert [mix(i * 0x9E3779B97F4A7C15 & MASK) for i in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def permute(index, n, key):
    return permute_range(index, 1, n, key).item()


def rounds(n, key):
    """Half the bits of an index, and a key a round: csrc/order/permutation.h, written once more."""
    half = next(h for h in range(4, 32) if 4**h >= n)
    return half, [mix((key + i * 0x9E3779B97F4A7C15) & MASK) for i in range(1, 9)]


def described_permutation(index, n, key):
    half, round_keys = rounds(n, key)
    while True:
        left, right = divmod(index, 2**half)
        for round_key in round_keys:
            left, right = right, left ^ (mix(right ^ round_key) >> (64 - half))
        index = left * 2**half + right
        if index < n:
            return index


def described_inverse(image, n, key):
    half, round_keys = rounds(n, key)
    while True:
        left, right = divmod(image, 2**half)
        for round_key in reversed(round_keys):
            left, right = right ^ (mix(left ^ round_key) >> (64 - half)), left
        image = left * 2**half + right
        if image < n:
            return image


@given(n=st.integers(1, 3000), key=keys)
def test_permutation_is_a_bijection(n, key):
    assert np.array_equal(np.sort(permute_range(0, n, n, key)), np.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1 << 20, (1 << 20) + 1])
def test_permutation_is_a_bijection_at_borders(n):
    assert np.array_equal(np.sort(permute_range(0, n, n, 7)), np.arange(n))


sizes = st.integers(0, 62).flatmap(lambda bits: st.integers(1, 2**bits))
size_and_index = sizes.flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1)))


@given(size_and_index=size_and_index, key=keys)
def test_permutation_is_inverted_for_any_size_and_key(size_and_index, key):
    n, index = size_and_index
    image = permute(index, n, key)
    assert 0 <= image < n
    assert described_inverse(image, n, key) == index
    assert permute(described_inverse(index, n, key), n, key) == index


@given(size_and_index=size_and_index, key=keys)
def test_permutation_equals_its_description(size_and_index, key):
    n, index = size_and_index
    assert permute(index, n, key) == described_permutation(index, n, key)


@given(size_and_index=size_and_index, key=keys, count=st.integers(0, 20))
def test_a_range_is_its_indices_one_by_one(size_and_index, key, count):
    n, start = size_and_index
    count = min(count, n - start)
    assert permute_range(start, count, n, key).tolist() == [permute(start + i, n, key) for i in range(count)]


def test_permutation_never_changes():
    """The order in which runs see their data hangs on these: a change here makes every run unrepeatable."""
    assert permute_range(0, 10, 10, 0).tolist() == [3, 6, 7, 8, 9, 0, 4, 1, 5, 2]
    assert permute_range(0, 5, 1_000_003, 42).tolist() == [792840, 667543, 416799, 967377, 516657]
    far = [permute(i, 2**62, 2**64 - 1) for i in (0, 1, 2**62 - 1)]
    assert far == [1822685120096887087, 2283013520127280124, 3833537471571570278]


def chi_square_bound(degrees):
    """Far beyond any chance (6 standard deviations): the keys are fixed, so this is no dice."""
    return degrees + 6 * math.sqrt(2 * degrees)


def chi_square(counts, expected):
    return float(((np.asarray(counts) - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_order_of_few_samples_is_equally_likely(n):
    orders = math.factorial(n)
    draws = 200 * orders
    counts = Counter(tuple(permute_range(0, n, n, key)) for key in range(draws))
    assert len(counts) == orders
    assert chi_square(list(counts.values()), draws / orders) < chi_square_bound(orders - 1)


@pytest.mark.parametrize("n", [17, 64, 1000, 100_000])
def test_permutation_looks_uniform(n):
    """Over many keys: any index goes to any place, and neighbours do not stay neighbours."""
    cells = 16
    places, steps = np.zeros((cells, cells)), np.zeros(cells)
    start = max(0, n // 2 - 500)
    count = min(n, 1000)
    index_cell = (np.arange(start, start + count) * cells) // n
    draws = max(200, 40_000 // count)
    for key in range(draws):
        images = permute_range(start, count, n, key)
        np.add.at(places, (index_cell, (images * cells) // n), 1)
        np.add.at(steps, ((np.diff(images) % n) * cells) // n, 1)
    per_row = places.sum(axis=1, keepdims=True)
    share = np.bincount((np.arange(n) * cells) // n, minlength=cells) / n
    used = per_row[:, 0] > 0
    expected = per_row[used] * share
    assert chi_square(places[used], expected) < chi_square_bound(expected.size)
    step_share = np.bincount((np.arange(1, n) * cells) // n, minlength=cells) / (n - 1)
    assert chi_square(steps, steps.sum() * step_share) < chi_square_bound(cells - 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: permute_range(0, 0, 0, 0),
        lambda: permute_range(0, 1, -5, 0),
        lambda: permute_range(0, 1, 2**62 + 1, 0),
        lambda: permute_range(3, 1, 3, 0),
        lambda: permute_range(-1, 1, 3, 0),
        lambda: permute_range(1, 3, 3, 0),
        lambda: permute_range(0, -1, 3, 0),
        lambda: permute_range(2**62, 2**62, 2**62, 0),
    ],
)
def test_indices_outside_are_refused(call):
    with pytest.raises(ValueError, match="permutation of"):
        call()
