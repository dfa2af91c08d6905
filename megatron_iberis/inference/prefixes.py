"""Sequences whose keys and values are at hand, for requests that begin alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from megatron_iberis.inference.state import Memory, State


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many ids two sequences begin with alike."""
    length = min(len(a), len(b))
    different = a[:length] != b[:length]
    first = int(different.argmax()) if length else 0
    return first if length and different[first] else length


class KeptPrefixes:
    """Requests that have ended: keys and values stay until the room is needed; the least recently used go first."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._kept: OrderedDict[State, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def tokens(self) -> int:
        """Of all of them."""
        return sum(len(ids) for ids in self._kept.values())

    def longest(self, ids: np.ndarray) -> tuple[State | None, int]:
        """The state that begins most like `ids`, and how many tokens of it do."""
        best: tuple[State | None, int] = (None, 0)
        for state, kept in self._kept.items():
            if (length := common_prefix(kept, ids)) > best[1]:
                best = state, length
        return best

    def used(self, state: State) -> None:
        """This one has just been of use."""
        if state in self._kept:
            self._kept.move_to_end(state)

    def keep(self, state: State, ids: Sequence[int]) -> None:
        """Ends the request with this state, but keeps what is known of its tokens, `ids`."""
        self._memory.keep(state)
        known = np.array(ids[: state.known], dtype=np.int64)
        for other, kept in list(self._kept.items()):
            if common_prefix(kept, known) == len(kept):  # it adds nothing to the new one
                self._drop(other)
        if any(common_prefix(kept, known) == len(known) for kept in self._kept.values()):
            self._memory.release(state)
        else:
            self._kept[state] = known

    def drop_oldest(self, but: State | None = None) -> bool:
        """Gives back the room of the least recently used one; False when there is none (beside `but`)."""
        oldest = next((state for state in self._kept if state is not but), None)
        if oldest is not None:
            self._drop(oldest)
        return oldest is not None

    def clear(self) -> None:
        """Gives back the room of all."""
        while self.drop_oldest():
            pass

    def _drop(self, state: State) -> None:
        del self._kept[state]
        self._memory.release(state)
