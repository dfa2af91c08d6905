"""The pass over raw logits by torch's operations, wherever it runs and in any precision."""

from __future__ import annotations

import torch

NAME = "portable"
CPU_BYTES = 1 << 23
GPU_BYTES = 1 << 28


def softcap_pass(
    logits: torch.Tensor, targets: torch.Tensor, softcap: float, range_: float, padding: int, gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """logits [n, V], targets [n] -> sums of likelihoods [n], and s at the targets [n]. See `chunked.SoftcapPass`."""
    vocab, wide = logits.shape[1], torch.promote_types(logits.dtype, torch.float32)
    total, at_target = logits.new_empty(2, len(logits), dtype=wide).unbind()
    rows = max(1, (GPU_BYTES if logits.is_cuda else CPU_BYTES) // (wide.itemsize * vocab))
    here = (targets >= 0) & (targets < vocab)
    index = torch.where(here, targets, 0).unsqueeze(1)
    for first in range(0, len(logits), rows):
        part = slice(first, first + rows)
        s = logits[part].to(wide).mul(-2.0 / softcap).sigmoid_()  # 6 x faster than tanh on a CPU
        likelihood = torch.mul(s, -range_).exp_()
        if padding:
            likelihood[:, -padding:] = 0.0
        total[part] = likelihood.sum(dim=1)
        at_target[part] = torch.where(here[part], s.gather(1, index[part]).squeeze(1), 0.0)
        if gradient:
            logits[part] = torch.ops.aten.sigmoid_backward(likelihood, s)
    return total, at_target
