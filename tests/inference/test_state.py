"""The memory for keys, values and convolution inputs gives everything out once and gets everything back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.config import load_recipe
from megatron_iberis.inference.state import Memory, Ranges
from tests.support.decoding import shape


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=60))
@settings(deadline=None)
def test_ranges_never_overlap_and_come_back_whole(actions: list[tuple[bool, int]]) -> None:
    ranges, taken = Ranges(100), dict[int, int]()
    for take, number in actions:
        if take:
            free = set(range(100)) - {i for start, n in taken.items() for i in range(start, start + n)}
            start = ranges.take(number)
            if start is None:
                assert not any(set(range(i, i + number)) <= free for i in range(100))
            else:
                assert set(range(start, start + number)) <= free
                taken[start] = number
        elif taken:
            start = sorted(taken)[number % len(taken)]
            ranges.give(start, taken.pop(start))
        assert ranges.free == 100 - sum(taken.values())
    for start, length in taken.items():
        ranges.give(start, length)
    assert ranges.take(100) == 0


def test_a_range_is_not_given_back_twice() -> None:
    ranges = Ranges(10)
    assert ranges.take(5) == 0
    ranges.give(0, 5)
    with pytest.raises(AssertionError, match="given back twice"):
        ranges.give(2, 2)


def test_what_is_released_is_filled_with_nan_and_what_is_kept_is_not() -> None:
    memory = Memory(shape("English"), 20, 2, poison=True)
    state = memory.take(6)
    assert state is not None
    memory.keys[:, state.start : state.start + 6] = 1
    state.known, slot = 4, state.slot
    assert (memory.inputs[:, :, slot] == 0).all()
    memory.keep(state)
    assert memory.inputs[:, :, slot].isnan().all()
    assert (memory.keys[:, :4] == 1).all()
    assert memory.keys[:, 4:20].isnan().all()
    memory.release(state)
    assert memory.keys[:, :20].isnan().all()
    with pytest.raises(AssertionError, match="released twice"):
        memory.release(state)
    assert memory.free_slots == 2
    assert memory.take(20) is not None


def test_only_attention_layers_keep_keys_and_values() -> None:
    """d20: 35 KB a token in bf16, where a cache for all layers takes 102."""
    d20, d12 = (load_recipe(name).model for name in ("d20", "d12"))
    assert Memory.bytes_per_token(d20, torch.bfloat16) == 7 * 2 * 1280 * 2 == 35_840
    assert Memory.bytes_per_token(d12, torch.bfloat16) == 6 * 2 * 1024 * 2 == 24_576
