"""Recorded steps, as a GPU replays them: what they read stands in fixed tensors, and nobody's rows change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.graphs import SHORTEST, StepGraphs, cuda_graph
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.state import Memory
from tests.support.decoding import SHAPES, decoder, likeliest_after, random_weights, reference, shape
from tests.support.requests import finish, sequence

recorded: list[tuple[int, ...]] = []


def recording(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """In a GPU's place: runs the same function, without new arguments, into the same result."""
    result = run().clone()
    recorded.append(tuple(result.shape))

    def replay() -> None:
        result.copy_(run())

    return replay, result


@pytest.mark.parametrize("prefill_tokens", [1, 6])
@pytest.mark.parametrize("name", SHAPES)
def test_replayed_steps_give_the_references_text(name: str, prefill_tokens: int) -> None:
    engine = Engine(decoder(name), memory_bytes=2**20, prefill_tokens=prefill_tokens, poison=True, capture=recording)
    recorded.clear()
    requests = [engine.submit(sequence(3 + 5 * i, i), Sampling(temperature=0), 6 + 2 * i) for i in range(5)]
    finish(engine)
    whole = reference(shape(name), random_weights(shape(name)))
    for request in requests:
        ids = [token.id for token in request.answer]
        assert ids == likeliest_after(whole, request.prompt.tolist(), ids)[:-1]
    assert len(recorded) == len(set(recorded)) > 0, "each shape is recorded once"
    assert {batch for batch, _ in recorded} <= {1, 2, 4, 8}


def test_a_longer_context_has_a_recording_of_its_own() -> None:
    config = shape("English", sequence_length=1024)
    model = decoder("English", sequence_length=1024)
    memory = Memory(config, 1000, 2, poison=True)
    graphs = StepGraphs(model, memory, recording)
    state = memory.take(SHORTEST + 3)
    assert state is not None
    recorded.clear()
    ids = sequence(SHORTEST + 3)
    with torch.no_grad():
        expected = reference(config, random_weights(config))(torch.tensor([ids]))[0]
    for token, logits in zip(ids, expected, strict=True):
        torch.testing.assert_close(graphs([token], [state])[0], logits, rtol=0, atol=1e-4)
    assert len(recorded) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_cuda_graphs_give_what_eager_steps_give() -> None:
    model = decoder("English", device="cuda")
    found = []
    for capture in (recording, cuda_graph):
        engine = Engine(model, memory_bytes=2**20, capture=capture)
        requests = [engine.submit(sequence(5 + i), Sampling(temperature=0), 20) for i in range(3)]
        finish(engine)
        found.append([request.answer_ids for request in requests])
    assert found[0] == found[1]
