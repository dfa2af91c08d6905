"""Continuations in a training run are the likeliest token each time, whatever the model's layout."""

from __future__ import annotations

import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.inference.exact import continue_prompt
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from tests.support.comparison import randomise
from tests.support.ranks import Ranks, groups_of

CPU = torch.device("cpu")
MODEL = ModelConfig(
    depth=4, width=32, heads=4, kv_heads=2, vocab_size=61, sequence_length=16, inner_norm=True, mlp_hidden=48
).resolved()
PROMPT = [7, 3, 3, 11, 60, 2, 5]


def reference() -> ReferenceIberis:
    model = ReferenceIberis(MODEL)
    randomise(model, 1)
    return model


def likeliest(model: ReferenceIberis, prompt: list[int], count: int, context: int) -> list[int]:
    """The model run on the whole window for each token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids[-context:]]))[0, -1].argmax()))
    return ids[len(prompt) :]


def continued(tensor: int, sequence: bool, prompts: list[list[int]], count: int, multiple: int) -> list[list[int]]:
    """Runs on a rank: greedy continuations by a model of this layout."""
    model = build_model(MODEL, groups_of(tensor), sequence)
    fill_parameters(shards(model), reference().state_dict())
    return [
        continue_prompt(model, p, count, CPU, sequence_length=MODEL.sequence_length, multiple=multiple)
        for p in prompts
    ]


def test_greedy_is_the_argmax_at_any_layout(one_rank: Ranks, two_ranks: Ranks) -> None:
    prompts = [PROMPT[:length] for length in (1, 2, 7)]  # 12 more leave the context window of 16
    wanted = [likeliest(reference(), prompt, 12, MODEL.sequence_length) for prompt in prompts]
    for multiple in (1, 4):
        assert one_rank(continued, 1, False, prompts, 12, multiple) == [wanted]
    assert two_ranks(continued, 2, False, prompts, 12, 2) == [wanted, wanted]
    assert two_ranks(continued, 2, True, prompts, 12, 2) == [wanted, wanted]


def test_only_the_context_window_is_looked_at() -> None:
    model, beginning = reference(), [1, 2, 3, 4, 5, 6, 7, 8, 9]
    window = continue_prompt(model, PROMPT, 6, CPU, sequence_length=len(PROMPT))
    assert continue_prompt(model, beginning + PROMPT, 6, CPU, sequence_length=len(PROMPT)) == window
    assert continue_prompt(model, beginning + PROMPT, 6, CPU, sequence_length=64) == likeliest(
        model, beginning + PROMPT, 6, 64
    )
