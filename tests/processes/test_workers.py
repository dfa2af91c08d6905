"""Work in several processes: in order, whatever fails; and the memory through which they hand it over."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.processes import mailbox
from megatron_iberis.processes.mailbox import Mailbox
from megatron_iberis.processes.workers import map_ordered


class Work:
    """For the worker tests: doubles, fails or dies."""

    def __call__(self, item: int) -> int:
        if item == -1:
            raise ValueError("a document that cannot be")
        if item == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * item


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_ordered(Work, range(50), 2)) == list(map_ordered(Work, range(50), 1)) == [*range(0, 100, 2)]


def test_an_error_in_a_worker_ends_the_work() -> None:
    with pytest.raises(ValueError, match="a document that cannot be"):
        list(map_ordered(Work, [1, 2, -1, *range(1000)], 2))


def test_what_fails_in_a_worker_is_told_as_it_was() -> None:
    """Also where the work is made; with the place where it happened."""
    for make, items in ((Work, [-1]), (partial(int, "no number"), [1])):
        with pytest.raises(ValueError, match=r"cannot be|no number") as caught:
            list(map_ordered(make, items, 2))
        assert "in _serve" in str(caught.value.__cause__)


def test_a_killed_worker_ends_the_work() -> None:
    with pytest.raises(ChildProcessError, match="a worker process died"):
        list(map_ordered(Work, [1, 2, -2, *range(1000)], 2))


class Repeated:
    """A string of so many bytes."""

    def __call__(self, size: int) -> bytes:
        return b"x" * size


def test_results_of_any_size_come_back() -> None:
    sizes = [0, 1, 30 << 20, 5, 9 << 20, 1 << 16, 12 << 20, 3]  # some larger than a mailbox is at first
    assert [len(result) for result in map_ordered(Repeated, sizes, 2)] == sizes


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 3, 1000, 70_000, 300_000])), min_size=1))
def test_a_mailbox_gives_both_sides_what_was_put_in(sizes: list[tuple[bool, int]]) -> None:
    """It grows and shrinks, whichever side makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mailbox, "_KEPT", 1 << 16)
        ours = Mailbox()
        sides = ours, Mailbox(os.dup(ours._file))
        for turn, size in sizes:
            value = {"text": os.urandom(size), "array": np.arange(size), "rest": [None, "あ"]}
            got = sides[not turn].get(sides[turn].put(value))
            assert (got["text"], got["rest"]) == (value["text"], value["rest"])
            np.testing.assert_array_equal(got["array"], value["array"])
        sides[0].put(None)
        assert os.fstat(ours._file).st_size == 1 << 16
        for side in sides:
            side.close()
