"""What a request leaves behind as it is run: keys and values in attention layers, a few inputs in SLC2 layers.

* `Memory` holds those of all requests in three tensors; a request has a `State`, which says where its own lie: a
  range of tokens for keys and values, and a slot for the convolutions' last K-1 inputs.
* A range is taken for all that a request may come to, so one that has begun can always go on.
* The keys and values of a request that has ended may stay, for others that begin alike; its slot does not:
  `recovery_window` tokens run again bring the convolutions' inputs back at any place.

d20 in bf16: 35 KB a token, and 66 KB a slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.kernels.huge_pages import empty_on_huge_pages


def recovery_window(config: ModelConfig) -> int:
    """How many tokens before a place give the convolutions' inputs there, on cached keys and values.

    Each SLC2 layer looks K-1 tokens back, into what the one below it has worked out from K-1 tokens further back.
    """
    return (config.kernel - 1) * (config.depth - len(config.attention_layers))


@dataclass(eq=False)
class State:
    """A request's place in a `Memory`, and how far it has come."""

    start: int
    """Its first token's row of keys and values."""
    capacity: int
    """Rows from there that are its own."""
    slot: int | None
    """Where the convolutions' inputs lie; None once it has ended."""
    length: int = 0
    """Tokens that have been run: the next one has this position."""
    known: int = 0
    """Tokens whose keys and values are there; more than `length` while the convolutions' inputs are recovered."""
    released: bool = False


class Memory:
    """Keys, values and convolution inputs of all requests of a model.

    tokens: how many all ranges have room for; requests: how many may run at a time. keys, values: [attention layers,
    tokens, KV, D]; inputs: [SLC2 layers, K-1, slots, E]. Behind them lie a row of zeros, a row that nobody reads, and
    a slot of that kind, for batches that have to be filled up. poison: fills what is released with NaN, so that
    whoever still reads it is found out.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokens: int,
        requests: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        poison: bool = False,
    ) -> None:
        attention = len(config.attention_layers)
        head_size = config.width // config.heads
        rows = (attention, tokens + 2, config.kv_heads, head_size)
        # Pages of a CPU's memory that nothing was written to take no room.
        self.keys, self.values = (empty_on_huge_pages(rows, dtype, device) for _ in range(2))
        slots = (config.depth - attention, config.kernel - 1, requests + 1, config.width)
        self.inputs = torch.zeros(slots, dtype=dtype, device=device)
        self.tokens, self.requests = tokens, requests
        self.spare_row, self.sink_row, self.spare_slot = tokens, tokens + 1, requests
        self._rows, self._slots, self._poison = Ranges(tokens), list(range(requests)), poison
        if poison:
            self.inputs[:, :, :requests] = float("nan")
            self._fill(0, tokens, float("nan"))
        self._fill(tokens, 2, 0.0)

    @staticmethod
    def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
        """Of keys and values."""
        head_size = config.width // config.heads
        return 2 * len(config.attention_layers) * config.kv_heads * head_size * dtype.itemsize

    @property
    def free_slots(self) -> int:
        """How many more requests may run."""
        return len(self._slots)

    def take(self, tokens: int) -> State | None:
        """The state of a request that begins, with room for so many tokens; None while there is none."""
        if not self._slots or (start := self._rows.take(tokens)) is None:
            return None
        slot = self._slots.pop()
        self.inputs[:, :, slot] = 0
        return State(start, tokens, slot)

    def copy(self, source: State, target: State, tokens: int) -> None:
        """Gives a state that has just begun the keys and values of another's first tokens."""
        assert target.length == 0
        assert tokens <= min(source.known, target.capacity)
        for cache in (self.keys, self.values):
            cache[:, target.start : target.start + tokens] = cache[:, source.start : source.start + tokens]
        target.known = tokens

    def keep(self, state: State) -> None:
        """Ends a request, but for its keys and values; `release` ends those, too."""
        assert state.slot is not None
        assert not state.released
        self._free_slot(state)
        self._free_rows(state.start + state.known, state.capacity - state.known)
        state.capacity = state.known

    def release(self, state: State) -> None:
        """Gives back all that a state has. Once only."""
        assert not state.released, "a state was released twice"
        state.released = True
        if state.slot is not None:
            self._free_slot(state)
        self._free_rows(state.start, state.capacity)

    def _free_slot(self, state: State) -> None:
        assert state.slot is not None
        if self._poison:
            self.inputs[:, :, state.slot] = float("nan")
        self._slots.append(state.slot)
        state.slot = None

    def _free_rows(self, start: int, count: int) -> None:
        if self._poison:
            self._fill(start, count, float("nan"))
        self._rows.give(start, count)

    def _fill(self, start: int, count: int, value: float) -> None:
        self.keys[:, start : start + count] = value
        self.values[:, start : start + count] = value


class Ranges:
    """Which parts of a row of places are free. The first that is large enough is taken; free neighbours are one."""

    def __init__(self, size: int) -> None:
        self._free = [(0, size)] if size else []  # (start, length), ascending

    @property
    def free(self) -> int:
        """Places in all."""
        return sum(length for _, length in self._free)

    def take(self, length: int) -> int | None:
        """The start of `length` places, which are no longer free; None when there are not so many together."""
        for i, (start, room) in enumerate(self._free):
            if room >= length:
                self._free[i : i + 1] = [(start + length, room - length)] if room > length else []
                return start
        return None

    def give(self, start: int, length: int) -> None:
        """Makes these places free."""
        if not length:
            return
        joined: list[tuple[int, int]] = []
        for begin, room in sorted([*self._free, (start, length)]):
            if joined and sum(joined[-1]) == begin:
                joined[-1] = (joined[-1][0], joined[-1][1] + room)
            else:
                assert not joined or sum(joined[-1]) < begin, "places were given back twice"
                joined.append((begin, room))
        self._free = joined
