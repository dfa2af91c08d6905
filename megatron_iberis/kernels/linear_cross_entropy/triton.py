"""The pass over raw logits on a GPU, by Triton: each logit is read once and written once, in place."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

NAME = "triton"
BLOCK = 4096


def softcap_pass(
    logits: torch.Tensor, targets: torch.Tensor, softcap: float, range_: float, padding: int, gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """logits [n, V], fp32 or bf16, targets [n] -> sums of likelihoods [n], and s at the targets [n], both fp32.

    See `chunked.SoftcapPass`. The sums are the same bits each time: blocks' sums are kept and added up in order.
    """
    rows, vocab = logits.shape
    here = (targets >= 0) & (targets < vocab)
    raw = logits.gather(1, torch.where(here, targets, 0).unsqueeze(1)).squeeze(1)  # before the pass takes its place
    at_target = torch.where(here, torch.sigmoid(raw.float() * (-2.0 / softcap)), 0.0)
    blocks = triton.cdiv(vocab, BLOCK)
    sums = torch.empty(rows, blocks, dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        _pass[(rows, blocks)](logits, sums, vocab, vocab - padding, blocks, 2.0 / softcap, range_, gradient, BLOCK)
    return sums.sum(1), at_target


@triton.jit
def _pass(logits, sums, vocab, tokens, blocks, scale, range_, GRADIENT: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    place = logits + row * vocab + column
    x = tl.load(place, mask=column < vocab, other=0.0).to(tl.float32) * scale
    power = tl.exp(-tl.abs(x))  # which cannot overflow
    inverse = 1.0 / (1.0 + power)
    s = tl.where(x > 0, power, 1.0) * inverse
    likelihood = tl.where(column < tokens, tl.exp(-range_ * s), 0.0)
    tl.store(sums + row * blocks + block, tl.sum(likelihood, 0))
    if GRADIENT:
        slope = likelihood * power * inverse * inverse  # likelihood s (1 - s)
        tl.store(place, tl.where(column < tokens, slope, 0.0).to(logits.dtype.element_ty), mask=column < vocab)
