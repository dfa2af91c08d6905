"""Continues a prompt by running the whole sequence again for each token: exact, and quadratic in the length.

Meant for the short samples of a training run, where the model is in DeepSpeed's hands and may be split.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from megatron_iberis.errors import InputError


@torch.no_grad()
def continue_prompt(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    prompt: list[int],
    new_tokens: int,
    device: torch.device,
    temperature: float = 0.0,
    top_k: int = 50,
    seed: int = 0,
    sequence_length: int = 2048,
    multiple: int = 1,
    end: int | None = None,
) -> list[int]:
    """The token ids that follow the prompt: new_tokens of them, or up to the token `end`, which is left out.

    logits_of: int64 [1, T] -> [1, T, V]; called by all ranks of a split model together. temperature 0 takes the
    likeliest token. multiple: T is padded to a multiple of this (sequence parallelism); what comes after a token
    does not change its logits. Only the last `sequence_length` tokens are looked at. InputError for a
    negative temperature.
    """
    if not temperature >= 0:
        raise InputError(f"temperature is {temperature}: it must be 0 (the likeliest token) or positive.")
    generator = torch.Generator().manual_seed(seed)
    ids = list(prompt)
    for _ in range(new_tokens):
        window = ids[-sequence_length:]
        padding = -len(window) % multiple
        logits = logits_of(torch.tensor([window + [0] * padding], device=device))[0, len(window) - 1]
        token = pick(logits.float().cpu(), temperature, top_k, generator)
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]


def pick(logits: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    """A token id from logits [V]: the likeliest at temperature 0, else drawn from the top_k likeliest."""
    if temperature == 0:
        return int(logits.argmax())
    values, indices = logits.topk(min(top_k, logits.numel()))
    probabilities = (values / temperature).softmax(-1)
    return int(indices[torch.multinomial(probabilities, 1, generator=generator)])
