"""The mixers' view of a step of decoding: which tokens stand in the row, and what state precedes each of them.

* `RaggedStep`: any number of tokens of any requests; attention works on each request's own rows of the memory.
* `SingleTokenStep`: one token a request, all told by tensors of fixed shapes, so that a CUDA graph can hold it.

Both write what the tokens leave behind into the memory; `RaggedStep.commit` then advances the requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F

from megatron_iberis.inference.state import Memory, State
from megatron_iberis.kernels.attention import causal_attention, single_query_attention
from megatron_iberis.kernels.short_convolution import gated_short_convolution, gated_short_convolution_step


class Step(Protocol):
    """What the decoder's mixers ask of a step, layer by layer; `layer` counts those of the same kind."""

    positions: torch.Tensor
    """Each token's place in its sequence, int64 [N]."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Causal attention of each token to its request's tokens. q: [N, H, D]; k, v: [N, KV, D] -> [N, H, D]."""
        ...

    def convolve(
        self, layer: int, x: torch.Tensor, alpha: torch.Tensor, a: torch.Tensor, b: torch.Tensor, taps: torch.Tensor
    ) -> torch.Tensor:
        """The gated short convolution. x, b: [N, E]; alpha: [N, H]; a: [N, E/H]; taps: [E, 1, K] -> [N, E]."""
        ...


class Chunk(NamedTuple):
    """Tokens of a request to be run after those that its state has seen; of how many last ones logits are wanted."""

    ids: Sequence[int]
    state: State
    logits: int = 1


class RaggedStep:
    """Chunks of any length, one after the other in the row."""

    def __init__(self, chunks: Sequence[Chunk], memory: Memory) -> None:
        assert all(0 < len(c.ids) <= c.state.capacity - c.state.length for c in chunks)
        self.memory, self.chunks = memory, chunks
        device = memory.keys.device
        positions, rows, wanted, new = (list[int]() for _ in range(4))
        self._bounds, at = list[tuple[int, int]](), 0
        for ids, state, logits in chunks:
            end = state.length + len(ids)
            positions += range(state.length, end)
            rows += range(state.start + max(state.length, state.known), state.start + end)
            new += range(at + max(0, state.known - state.length), at + len(ids))
            self._bounds.append((at, at := at + len(ids)))
            wanted += range(at - logits, at)
        self.positions = torch.tensor(positions, device=device)
        self.wanted = torch.tensor(wanted, dtype=torch.int64, device=device)
        self._rows = torch.tensor(rows, dtype=torch.int64, device=device)
        # Tokens that are run again only for the convolutions' sake leave the keys and values as they are.
        self._new = None if len(new) == len(positions) else torch.tensor(new, dtype=torch.int64, device=device)
        # Requests with one token each, first in the row as a rule, go through the mixers together.
        self._singles = next((i for i, c in enumerate(chunks) if len(c.ids) > 1), len(chunks))
        self._slots = torch.tensor([c.state.slot for c in chunks[: self._singles]], dtype=torch.int64, device=device)
        singles = [c.state for c in chunks[: self._singles]]
        self._starts, self._lengths = [s.start for s in singles], [s.length + 1 for s in singles]

    @property
    def tokens(self) -> torch.Tensor:
        """The row of ids, int64 [N]."""
        return torch.tensor([i for chunk in self.chunks for i in chunk.ids], device=self.memory.keys.device)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        keys, values = self.memory.keys[layer], self.memory.values[layer]
        for cache, new in ((keys, k), (values, v)):
            cache.index_copy_(0, self._rows, new if self._new is None else new[self._new])
        out = torch.empty_like(q)
        if count := self._singles:
            out[:count] = single_query_attention(q[:count], keys, values, self._starts, self._lengths)
        for (first, last), (ids, state, _) in zip(self._bounds[count:], self.chunks[count:], strict=True):
            rows = slice(state.start, state.start + state.length + len(ids))
            context = (x[rows].unsqueeze(1) for x in (keys, values))
            out[first:last] = causal_attention(q[first:last].unsqueeze(1), *context).squeeze(1)
        return out

    def convolve(
        self, layer: int, x: torch.Tensor, alpha: torch.Tensor, a: torch.Tensor, b: torch.Tensor, taps: torch.Tensor
    ) -> torch.Tensor:
        inputs = self.memory.inputs[layer]  # [K-1, slots, E]
        parts = []
        if count := self._singles:
            parts.append(
                gated_short_convolution_step(
                    x[:count], alpha[:count], a[:count], b[:count], taps, inputs, self._slots
                )
            )
        for bounds, chunk in zip(self._bounds[count:], self.chunks[count:], strict=True):
            assert chunk.state.slot is not None
            slot = slice(chunk.state.slot, chunk.state.slot + 1)
            own_x, own_alpha, own_a, own_b = (y[slice(*bounds)].unsqueeze(1) for y in (x, alpha, a, b))  # [T, 1, ...]
            mixed, tail = gated_short_convolution(
                own_x, own_alpha, own_a, own_b, taps, inputs[:, slot], return_tail=True
            )
            inputs[:, slot] = tail
            parts.append(mixed[:, 0])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def commit(self) -> None:
        """The tokens have been run: the requests' states have seen them."""
        for ids, state, _ in self.chunks:
            state.length += len(ids)
            state.known = max(state.known, state.length)


class SingleTokenStep:
    """One token of each of B requests, whose tensors may change from step to step.

    positions, starts, slots: int64 [B], the token's place in its sequence, the row of its sequence's first keys and
    values, and its slot. context: what no sequence is longer than.
    """

    def __init__(
        self, memory: Memory, positions: torch.Tensor, starts: torch.Tensor, slots: torch.Tensor, context: int
    ) -> None:
        self.memory, self.positions, self.starts, self.slots = memory, positions, starts, slots
        self._all = torch.arange(context, device=positions.device)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        keys, values = self.memory.keys[layer], self.memory.values[layer]
        for cache, new in ((keys, k), (values, v)):
            cache.index_copy_(0, self.starts + self.positions, new)
        seen = self._all <= self.positions[:, None]  # [B, S]
        # Not another request's rows, which may hold anything: NaN times nothing is NaN.
        rows = torch.where(seen, self.starts[:, None] + self._all, self.memory.spare_row)
        k, v = (x[rows].transpose(1, 2) for x in (keys, values))  # [B, KV, S, D]
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=seen[:, None, None], enable_gqa=grouped)
        return out.squeeze(2)

    def convolve(
        self, layer: int, x: torch.Tensor, alpha: torch.Tensor, a: torch.Tensor, b: torch.Tensor, taps: torch.Tensor
    ) -> torch.Tensor:
        return gated_short_convolution_step(x, alpha, a, b, taps, self.memory.inputs[layer], self.slots)
