"""Steps of one token a request, recorded once and replayed: on a GPU, most of a small model's step is launches.

A recording has fixed shapes: there is one for each number of requests in BATCHES and each longest context that is a
power of two, made when it is first needed. Requests that are too few are filled up with ones that belong to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.state import Memory, State
from megatron_iberis.inference.steps import SingleTokenStep

BATCHES = (1, 2, 4, 8, 16, 32)
SHORTEST = 256
"""The shortest context that a recording is made for."""
Capture = Callable[[Callable[[], torch.Tensor]], tuple[Callable[[], None], torch.Tensor]]
"""Records a function of tensors that stay where they are: what runs it again, and where its result then lies."""


def cuda_graph(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """A `Capture` as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # kernels choose and allocate what they need before the recording
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph.replay, result


class StepGraphs:
    """Runs one token of each of some requests. capture: by default CUDA graphs."""

    def __init__(self, decoder: Decoder, memory: Memory, capture: Capture = cuda_graph) -> None:
        self._decoder, self._memory, self._capture = decoder, memory, capture
        self._recorded: dict[tuple[int, int], _Recording] = {}

    def __call__(self, ids: Sequence[int], states: Sequence[State]) -> torch.Tensor:
        """The logits after one more token of each request, fp32 [B, V]; the states have then seen it."""
        batch = next(size for size in BATCHES if size >= len(ids))
        longest = 1 + max(state.length for state in states)
        context = max(SHORTEST, 1 << (longest - 1).bit_length())
        if (batch, context) not in self._recorded:
            self._recorded[batch, context] = _Recording(self._decoder, self._memory, batch, context, self._capture)
        logits = self._recorded[batch, context].run(ids, states)
        for state in states:
            state.length += 1
            state.known = max(state.known, state.length)
        return logits

    @staticmethod
    def fits(states: Sequence[State]) -> bool:
        """Whether these requests can be run so: as many as a recording holds, none of which is being recovered."""
        return 0 < len(states) <= BATCHES[-1] and all(state.known <= state.length for state in states)


class _Recording:
    """A step of fixed shapes, and the tensors that it reads."""

    def __init__(self, decoder: Decoder, memory: Memory, batch: int, context: int, capture: Capture) -> None:
        nobody = [[0] * batch, [0] * batch, [memory.sink_row] * batch, [memory.spare_slot] * batch]
        self._nobody = torch.tensor(nobody)
        self._inputs = self._nobody.to(memory.keys.device)  # ids, positions, starts, slots: [4, B]
        ids, positions, starts, slots = self._inputs
        step = SingleTokenStep(memory, positions, starts, slots, context)
        self._replay, self._logits = capture(lambda: decoder(ids, step))

    def run(self, ids: Sequence[int], states: Sequence[State]) -> torch.Tensor:
        rows = [(i, s.length, s.start, s.slot) for i, s in zip(ids, states, strict=True)]
        inputs = self._nobody.clone()
        inputs[:, : len(rows)] = torch.tensor(rows).T
        self._inputs.copy_(inputs)
        self._replay()
        return self._logits[: len(rows)]
