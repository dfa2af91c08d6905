"""In bf16 and int8 a batch may change the rounding: greedy text is the same but where two tokens are nearly even."""

from __future__ import annotations

import pytest
import torch

from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.state import Memory
from megatron_iberis.inference.steps import Chunk, RaggedStep
from tests.support.decoding import decoder
from tests.support.requests import finish, sequence

MARGIN = {"fp32": 1e-4, "bf16": 0.5, "int8": 0.01}
"""Of the best logit over the second, above which no batch changes what is chosen. The logits go up to 15.

A row of an int8 product does not depend on its neighbours, but it is rounded to int16 in groups, which makes more of
what attention, in fp32, rounds otherwise in another batch.
"""
NAME = "Japanese-English"


def model_of(kind: str) -> Decoder:
    return decoder(NAME, torch.bfloat16 if kind == "bf16" else torch.float32, body=kind, head=kind)


@torch.inference_mode()
def logits_of(model: Decoder, rows: list[list[int]], chunks: tuple[int, ...]) -> list[torch.Tensor]:
    """Of each row [T, V], all rows together, cut into chunks of these sizes in turn."""
    memory = Memory(model.config, 500, len(rows), model.dtype)
    states = [memory.take(len(row)) for row in rows]
    found: list[list[torch.Tensor]] = [[] for _ in rows]
    at = 0
    for size in chunks:
        part = [Chunk(row[at : at + size], s, size) for row, s in zip(rows, states, strict=True) if s is not None]
        step = RaggedStep(part, memory)
        for parts, logits in zip(found, model(step.tokens, step, step.wanted).split(size), strict=True):
            parts.append(logits)
        step.commit()
        at += size
    return [torch.cat(parts) for parts in found]


@pytest.mark.parametrize("kind", MARGIN)
def test_no_batch_and_no_chunks_move_a_logit_by_half_the_margin(kind: str) -> None:
    model = model_of(kind)
    rows = [sequence(40, i) for i in range(8)]
    alone = [logits_of(model, [row], (40,))[0] for row in rows]
    moved = 0.0
    for chunks in ((40,), (20, 1, 1, 1, 1, 1, 15), (1,) * 40):
        for one, other in zip(alone, logits_of(model, rows, chunks), strict=True):
            moved = max(moved, (one - other).abs().max().item())
    assert 0 < moved <= MARGIN[kind] / 2


@pytest.mark.parametrize("kind", MARGIN)
def test_greedy_text_differs_only_where_the_best_two_are_within_the_margin(kind: str) -> None:
    model = model_of(kind)
    prompts = [sequence(5 + 3 * i, i) for i in range(8)]
    alone, together = Engine(model, 1), Engine(model, 8, prefill_tokens=16)
    shared = [together.submit(prompt, Sampling(temperature=0), 40) for prompt in prompts]
    finish(together)
    for prompt, request in zip(prompts, shared, strict=True):
        single = alone.submit(prompt, Sampling(temperature=0), 40)
        finish(alone)
        pairs = zip(single.answer_ids, request.answer_ids, strict=True)
        different = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
        if different is not None:
            ids = [*prompt, *single.answer_ids[:different]]
            best, second = logits_of(model, [ids], (len(ids),))[0][-1].topk(2).values
            assert best - second <= MARGIN[kind]
