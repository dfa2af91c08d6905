"""Head, soft cap and cross entropy over a vocabulary that is split over tensor-parallel ranks.

* Tokens are taken in chunks that fit a cache: [N, V] logits never exist (8 GB in bf16 for d20's micro-batch).
* The gradient is worked out in the forward pass, in place in the chunk's logits, while they are at hand: one
  tanh and one exp a logit, no second matrix product to get them back.
* Capped logits lie within +-softcap, so exp(logit - softcap) can neither overflow nor vanish in fp32: no
  maximum is searched, and none has to be agreed on by the ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

CPU_CHUNK_BYTES = 1 << 23
GPU_CHUNK_BYTES = 1 << 29


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    vocab_start: int = 0,
    padding: int = 0,
    group: Any = None,
) -> torch.Tensor:
    """Summed negative log likelihood of the targets, in nats: an fp32 scalar, the same on all ranks of `group`.

    hidden: [N, E], the same on all ranks; weight: [V_local, E], this rank's rows of the head, as many on every
    rank, the last `padding` of them no tokens; targets: [N] global ids, -1 is ignored; vocab_start: the global id
    of weight's first row.
    The gradient for `hidden` is this rank's part: whoever made `hidden` sums it over the group.
    """
    loss: torch.Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, softcap, vocab_start, padding, group)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        softcap: float,
        vocab_start: int,
        padding: int,
        group: Any,
    ) -> torch.Tensor:
        tokens, vocab = hidden.shape[0], weight.shape[0]
        with_gradient = any(ctx.needs_input_grad[:2])
        budget = GPU_CHUNK_BYTES if hidden.is_cuda else CPU_CHUNK_BYTES
        rows = max(64, budget // (4 * vocab))
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        if with_gradient:
            d_hidden = torch.empty_like(hidden)
            d_weight = torch.zeros_like(weight, dtype=torch.float32)
        for first in range(0, tokens, rows):
            chunk = slice(first, min(first + rows, tokens))
            logits = (hidden[chunk] @ weight.t()).float()  # [n, V_local]
            chunk_loss, d_logits = _chunk_loss(
                logits, targets[chunk], softcap, vocab_start, padding, group, with_gradient
            )
            loss += chunk_loss
            if with_gradient:
                d_logits = d_logits.to(hidden.dtype)
                torch.mm(d_logits, weight, out=d_hidden[chunk])
                if hidden.dtype == torch.float32:
                    d_weight.addmm_(d_logits.t(), hidden[chunk])
                else:
                    d_weight += d_logits.t() @ hidden[chunk]
        if with_gradient:
            ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        scale = grads[0]
        return d_hidden * scale.to(d_hidden.dtype), d_weight * scale.to(d_weight.dtype), *[None] * 5


def _chunk_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    vocab_start: int,
    padding: int,
    group: Any,
    with_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss (scalar) of raw fp32 logits [n, V_local], and its gradient by them (may overwrite them)."""
    local = targets - vocab_start
    here = (local >= 0) & (local < logits.shape[1]) & (targets >= 0)
    index = torch.where(here, local, 0).unsqueeze(1)  # [n, 1]
    tanh = logits.mul_(1.0 / softcap).tanh_()
    likelihood = torch.sub(tanh, 1.0).mul_(softcap).exp_()  # exp(capped - softcap), unnormalised
    if padding:
        likelihood[:, -padding:] = 0.0
    total = likelihood.sum(dim=1)  # [n]
    at_target = torch.where(here, tanh.gather(1, index).squeeze(1), 0.0)
    if group is not None and dist.get_world_size(group) > 1:
        both = torch.stack((total, at_target))
        dist.all_reduce(both, group=group)
        total, at_target = both.unbind()
    counted = targets >= 0
    loss = torch.where(counted, total.log() + softcap * (1.0 - at_target), 0.0).sum()
    if not with_gradient:
        return loss, logits
    # d loss / d raw = (probability - is_target) * (1 - tanh^2)
    probability = likelihood.mul_((counted / total).unsqueeze(1))
    probability.scatter_add_(1, index, -here.to(probability.dtype).unsqueeze(1))
    return loss, probability.mul_(tanh.square_().neg_().add_(1.0))
