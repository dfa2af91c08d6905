"""A mixture's proportions hold at every prefix, any sample is found at once, each file keeps its own order."""

import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.data.batches import Batch
from megatron_iberis.data.order.blending import Blend, read_mixture
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.rows import ConcatSource, Mixture, Rows
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from tests.support.token_files import TokenFileWriter

PLACES = 2500  # more than two blocks of the formula

alike = st.lists(st.integers(1, 30), min_size=1, max_size=40)
equal = st.integers(1, 300).map(lambda files: [1] * files)
decades = st.lists(st.integers(0, 4).flatmap(lambda d: st.integers(10**d, 10 ** (d + 1))), min_size=1, max_size=30)
one_large = alike.map(lambda weights: [1_000_000, *(w * 50 for w in weights)])
decimals = st.lists(st.decimals("0.001", 1, places=6).map(Fraction), min_size=1, max_size=12)
any_weights = st.one_of(alike, equal, decades, one_large, decimals)
first_places = st.one_of(st.integers(0, 5000), st.integers(0, 2**61))


def assert_within_one(weights, first, files, indices):
    """Before and after each sample: the file's samples so far differ from their share by less than one."""
    total = sum(weights)
    for place, (file, index) in enumerate(zip(files.tolist(), indices.tolist(), strict=True), start=first):
        share = Fraction(weights[file]) / total
        assert -1 < index - place * share < 1
        assert -1 < index + 1 - (place + 1) * share < 1


@given(weights=any_weights, first=first_places)
@settings(max_examples=120, deadline=None)
def test_proportions_hold_within_one_sample_at_every_prefix(weights, first):
    files, indices = Blend(weights).locate(first, PLACES)
    assert_within_one(weights, first, files, indices)
    for file in range(len(weights)):
        own = indices[files == file]
        assert np.array_equal(np.diff(own), np.ones(max(0, len(own) - 1)))  # in order, none missing, none twice
        if first == 0 and len(own):
            assert own[0] == 0


@given(weights=any_weights, first=first_places, counts=st.lists(st.integers(0, 700), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_sample_is_found_without_the_ones_before(weights, first, counts):
    whole = Blend(weights).locate(first, sum(counts))
    fresh, start = [], first
    for count in counts:
        fresh.append(Blend(weights).locate(start, count))
        start += count
    for row in (0, 1):
        assert np.array_equal(whole[row], np.concatenate([[], *(part[row] for part in fresh)]))


@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=12), epoch=st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_each_file_is_read_once_an_epoch(sizes, epoch):
    files, indices = Blend(sizes).locate(epoch * sum(sizes), sum(sizes))
    for file, size in enumerate(sizes):
        assert indices[files == file].tolist() == list(range(epoch * size, (epoch + 1) * size))


@given(weights=alike, factor=st.integers(1, 1000))
def test_only_the_proportions_of_weights_count(weights, factor):
    scaled = [Fraction(weight, factor) for weight in weights]
    for one, other in zip(Blend(weights).locate(0, 200), Blend(scaled).locate(0, 200), strict=True):
        assert np.array_equal(one, other)


def test_blend_never_changes():
    """A change here makes every run unrepeatable: do not touch these numbers."""
    assert Blend([Fraction("0.7"), Fraction("0.3")]).locate(0, 10)[0].tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0, 1]
    files, indices = Blend([5, 3, 2, 1]).locate(10**15 + 7, 12)
    assert files.tolist() == [0, 1, 0, 2, 3, 0, 1, 0, 2, 0, 1, 0]
    assert indices[:4].tolist() == [454545454545458, 272727272727275, 454545454545459, 181818181818183]


def test_a_far_sample_costs_what_the_first_does():
    started = time.perf_counter()
    Blend(range(1, 101)).locate(2**61, 32)
    assert time.perf_counter() - started < 0.1  # measured: under 1 ms


def test_a_share_below_a_thousandth_is_kept_too():
    weights = [10**6, 1, 3]
    files, indices = Blend(weights).locate(0, 3_000_000)
    rare = np.flatnonzero(files)
    assert_within_one(weights, int(rare[0]), files[rare[:1]], indices[rare[:1]])
    assert np.bincount(files).tolist() in ([2999988, 3, 9], [2999989, 2, 9], [2999989, 3, 8])


@pytest.mark.parametrize("weights", [[2**24, 1], [2**70, 2**70 - 1]])
def test_weights_beyond_the_formula_are_refused(weights):
    with pytest.raises(InputError, match=r"leave it out, raise its weight|too many digits: round them"):
        Blend(weights)


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, -1), (2**62, 1), (2**62 - 1, 2)])
def test_impossible_samples_are_refused(first, count):
    with pytest.raises(ValueError, match="give numbers from 0"):
        Blend([1, 2]).locate(first, count)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", [("a", None)]),
        (" my files/a ", [("my files/a", None)]),
        ("a|b/c | d", [("a", None), ("b/c", None), ("d", None)]),
        ("0.7 a|3e-1 b", [("a", Fraction(7, 10)), ("b", Fraction(3, 10))]),
        ("2/3 a | 1 my file", [("a", Fraction(2, 3)), ("my file", Fraction(1))]),
        ("7", None),
        ("a |", None),
        ("", None),
        ("0.7 a | b", None),
        ("0 a | 1 b", None),
        ("-1 a", None),
    ],
)
def test_a_mixture_reads_as_it_is_written(text, parts):
    if parts is None:
        with pytest.raises(ValueError, match=r"write it as|give all of them one|is not positive"):
            read_mixture(text)
    else:
        assert [(part.path, part.weight) for part in read_mixture(text)] == parts


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Files of 60, 100 and 33 tokens, each of its own range of ids, in rows of 4."""
    made = []
    for number, size in enumerate((60, 100, 33)):
        prefix = tmp_path_factory.mktemp("mixture") / str(number)
        with TokenFileWriter(prefix, 1000) as writer:
            writer.add_document(np.arange(size) + 200 * number)
        made.append(ConcatSource(TokenFile(prefix), SampleOrder(size, 4, seed=number, shuffle=True), 1000))
    return made


def test_each_file_keeps_its_own_order_and_epochs(sources):
    blend = Blend([5, 3, 2])
    mixture = Mixture(sources, blend)
    batch = mixture.read(1, 400)
    files, indices = blend.locate(1, 400)
    for row, (file, index) in enumerate(zip(files.tolist(), indices.tolist(), strict=True)):
        own = sources[file].read(index, 1)
        assert np.array_equal(batch.tokens[row], own.tokens[0])
        assert np.array_equal(batch.targets[row], own.targets[0])
        assert mixture.locate(1 + row) == sources[file].locate(index)


def test_an_epoch_of_the_mixture_trains_every_token_once(sources):
    sizes = [source.order.samples_per_epoch for source in sources]
    targets = Mixture(sources, Blend(sizes)).read(sum(sizes), sum(sizes)).targets.flatten()
    assert len(targets) == len(set(targets.tolist())) == 4 * sum(sizes)


def test_a_mixture_of_one_file_is_that_file(sources):
    one, mixed = sources[1].read(20, 30), Mixture(sources[1:2], Blend([7])).read(20, 30)
    assert np.array_equal(one.tokens, mixed.tokens)
    assert np.array_equal(one.targets, mixed.targets)


class Constant:
    """One source's rows, with weights or without."""

    def __init__(self, token, weight):
        self.token, self.weight = token, weight

    def read(self, first, count):
        tokens = np.full((count, 4), self.token, np.int64)
        weights = None if self.weight is None else np.full(tokens.shape, self.weight, np.float32)
        return Rows(tokens, tokens, weights=weights)


def test_a_mixture_keeps_each_source_s_weights_and_has_1_where_there_are_none():
    rows = Mixture([Constant(0, 0.5), Constant(1, None), Constant(2, 3.0)], Blend([1, 1, 1])).read(0, 30)
    assert rows.weights.dtype == np.float32
    assert np.array_equal(rows.weights, np.array([0.5, 1.0, 3.0])[rows.tokens])
    assert set(rows.tokens[:, 0].tolist()) == {0, 1, 2}
    assert Mixture([Constant(0, None), Constant(1, None)], Blend([1, 1])).read(0, 30).weights is None
    assert (Mixture([Constant(0, 0.5)], Blend([1])).read(0, 3).weights == 0.5).all()


def test_weights_reach_the_batch():
    batch = Batch.of(Constant(0, 0.5).read(0, 3))
    assert batch.weights.dtype == torch.float32
    assert torch.equal(batch.weights, torch.full((3, 4), 0.5))
    assert Batch.of(Constant(0, None).read(0, 3)).weights is None
