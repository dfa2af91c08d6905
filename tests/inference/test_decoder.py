"""The decoder on its state equals the model's full forward pass, however a sequence is cut into chunks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.state import Memory, State, recovery_window
from megatron_iberis.inference.steps import Chunk, RaggedStep, SingleTokenStep
from tests.support.decoding import SHAPES, decoder, random_weights, reference, shape
from tests.support.golden_cases import CASES, model_config, tensors
from tests.support.requests import sequence


def memory_for(model: Decoder, requests: int = 4, tokens: int = 400) -> Memory:
    return Memory(model.config, tokens, requests, model.dtype, poison=True)


def run(model: Decoder, memory: Memory, *chunks: tuple[list[int], State]) -> list[torch.Tensor]:
    """The logits of all tokens of each chunk."""
    step = RaggedStep([Chunk(ids, state, len(ids)) for ids, state in chunks], memory)
    logits = model(step.tokens, step, step.wanted)
    step.commit()
    return list(logits.split([len(ids) for ids, _ in chunks]))


@pytest.mark.parametrize("case", CASES)
def test_decoder_equals_golden(case: str) -> None:
    model = Decoder(model_config(case), tensors(case, "weights"))
    memory = memory_for(model)
    golden = tensors(case, "batch")
    for row, logits in zip(golden["input_ids"].tolist(), golden["logits"], strict=True):
        state = memory.take(len(row))
        assert state is not None
        found = torch.cat(
            [run(model, memory, (row[:5], state))[0], *(run(model, memory, ([i], state))[0] for i in row[5:])]
        )
        torch.testing.assert_close(found, logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_any_chunks_of_any_requests_equal_the_full_forward(name: str, data: st.DataObject) -> None:
    model = decoder(name)
    whole = reference(model.config, random_weights(model.config))
    memory = memory_for(model)
    rows = [sequence(n, i) for i, n in enumerate(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))]
    states = [memory.take(len(row)) for row in rows]
    found: list[list[torch.Tensor]] = [[] for _ in rows]
    while open_rows := [i for i, s in enumerate(states) if s is not None and s.length < len(rows[i])]:
        chosen = data.draw(st.lists(st.sampled_from(open_rows), unique=True, min_size=1))
        chunks = []
        for i in chosen:
            state = states[i]
            assert state is not None
            size = data.draw(st.sampled_from((1, 1, 1, 2, 3, 7, 40)))
            chunks.append((rows[i][state.length : state.length + size], state))
        for i, logits in zip(chosen, run(model, memory, *chunks), strict=True):
            found[i].append(logits)
    for row, logits in zip(rows, found, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(torch.cat(logits), whole(torch.tensor([row]))[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_the_convolutions_inputs_are_recovered_at_every_cut(name: str) -> None:
    """In fp64, where a window that is one token short shows."""
    config = shape(name)
    weights = random_weights(config)
    for key, value in weights.items():
        if key.endswith("conv1d.weight"):  # the oldest tap counts most, so that what it reaches does
            value[..., 0] += 1
    model = Decoder(config, weights, torch.float64)
    row, memory = sequence(48), memory_for(model)
    source = memory.take(len(row))
    assert source is not None
    (expected,) = run(model, memory, (row, source))
    window = recovery_window(config)
    errors = {}
    for cut in range(window, len(row)):
        for short in (0, 1) if window and cut > window else (0,):
            state = memory.take(len(row))
            assert state is not None
            memory.copy(source, state, cut)
            state.length = cut - window + short
            (logits,) = run(model, memory, (row[state.length :], state))
            error = (logits[window - short :] - expected[cut:]).abs().max().item()
            errors[short] = max(errors.get(short, 0.0), error)
            memory.release(state)
    assert errors[0] < 1e-10
    assert errors.get(1, 1) > 1e-10, "a window that is a token short was not noticed"


@pytest.mark.parametrize(
    ("depth", "rate", "kernel", "window"), [(16, 3, 3, 20), (20, 3, 3, 26), (6, 1, 3, 0), (4, 3, 4, 6)]
)
def test_recovery_window_is_k_minus_1_tokens_a_convolution(depth: int, rate: int, kernel: int, window: int) -> None:
    config = vars(shape("English")) | {"depth": depth, "slc_rate": rate, "kernel": kernel}
    assert recovery_window(type(shape("English"))(**config)) == window


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_told_by_tensors_equals_a_ragged_one(name: str) -> None:
    model = decoder(name)
    memory, other = memory_for(model), memory_for(model)
    prompts = [sequence(n, n) for n in (1, 9, 17)]
    states = []
    for prompt in prompts:
        mine, same = (m.take(len(prompt) + 4) for m in (memory, other))
        assert mine is not None
        assert same is not None
        run(model, memory, (prompt, mine))
        run(model, other, (prompt, same))
        states.append((mine, same))
    for token in (3, 5, 8):
        expected = torch.cat(run(model, memory, *(([token], mine) for mine, _ in states)))
        same = [state for _, state in states]
        places = ([s.length for s in same], [s.start for s in same], [s.slot for s in same])
        step = SingleTokenStep(other, *map(torch.tensor, places), 32)
        torch.testing.assert_close(model(torch.tensor([token] * 3), step), expected, rtol=0, atol=1e-4)
        for state in same:
            state.length += 1


def test_bf16_is_close_to_fp32() -> None:
    exact, rounded = decoder("Japanese-English"), decoder("Japanese-English", torch.bfloat16)
    row = sequence(40)
    found = []
    for model in (exact, rounded):
        memory = memory_for(model)
        state = memory.take(len(row))
        assert state is not None
        found.append(run(model, memory, (row, state))[0].log_softmax(-1))
    divergence = (found[0].exp() * (found[0] - found[1])).sum(-1).mean()
    assert 0 < divergence < 0.01
