"""Continues a prompt by running the whole sequence again for each token: exact, and quadratic in the length.

Meant for the short samples of a training run, where the model is in DeepSpeed's hands and may be split.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


@torch.no_grad()
def continue_prompt(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    prompt: list[int],
    new_tokens: int,
    device: torch.device,
    sequence_length: int = 2048,
    multiple: int = 1,
) -> list[int]:
    """The token ids that follow the prompt, new_tokens of them, the likeliest each time.

    logits_of: int64 [1, T] -> [1, T, V]; called by all ranks of a split model together. multiple: T is padded to a
    multiple of this (sequence parallelism); what comes after a token does not change its logits. Only the last
    `sequence_length` tokens are looked at.
    """
    ids = list(prompt)
    for _ in range(new_tokens):
        window = ids[-sequence_length:]
        padding = -len(window) % multiple
        logits = logits_of(torch.tensor([window + [0] * padding], device=device))
        ids.append(int(logits[0, len(window) - 1].argmax()))
    return ids[len(prompt) :]
