"""Head, soft cap and cross entropy over a vocabulary that is split over tensor-parallel ranks.

* Tokens are taken in chunks that fit a cache: [N, V] logits never exist (8 GB in bf16 for d20's micro-batch).
* The gradient is worked out in the forward pass, in place, while the chunk's logits are at hand: no second
  matrix product to get them back.
* The cap goes by s = sigmoid(-2 logit / softcap): tanh is 1 - 2 s, and sigmoid is 6 x faster on a CPU. The
  capped logit is softcap - 2 softcap s, so exp(-2 softcap s) is a likelihood that can neither overflow nor
  vanish in fp32: no maximum is searched, and none has to be agreed on by the ranks.
* Log-likelihoods of single tokens get their factors only after the forward pass: there, and only there, the
  backward pass works out the logits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed import ProcessGroup

NAME = "portable"
CPU_CHUNK_BYTES = 1 << 23
GPU_CHUNK_BYTES = 1 << 29


def softcapped_logits(hidden: torch.Tensor, weight: torch.Tensor, softcap: float) -> torch.Tensor:
    """hidden: [..., E], weight: [V, E] -> fp32 [..., V]."""
    return softcap * torch.tanh(F.linear(hidden, weight).float() / softcap)


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    vocab_start: int,
    padding: int,
    group: ProcessGroup | None,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """hidden [N, E], weight [V_local, E], targets [N], weights [N] -> fp32 scalar."""
    head = _Head(softcap, vocab_start, padding, group)
    loss: torch.Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, weights, head)
    return loss


def token_log_likelihoods(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    vocab_start: int,
    padding: int,
    group: ProcessGroup | None,
    temperature: float,
) -> torch.Tensor:
    """hidden [N, E], weight [V_local, E], targets [N] -> fp32 [N]."""
    head = _Head(softcap, vocab_start, padding, group, temperature)
    found: torch.Tensor = _TokenLogLikelihoods.apply(hidden, weight, targets, head)
    return found


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None,
        head: _Head,
    ) -> torch.Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = _Gradient(hidden, weight) if any(ctx.needs_input_grad[:2]) else None
        for chunk, logits, room in _chunks(hidden, weight):
            s, likelihood = head.exponentials(logits, room)
            goals = _Goals(targets[chunk], head.vocab_start, weight.shape[0])
            total, at_target = head.totals(s, likelihood, goals)
            counts = goals.counted if weights is None else torch.where(goals.counted, weights[chunk], 0.0)
            nats = torch.where(goals.counted, head.nats(total, at_target), 0.0)
            loss += (nats if weights is None else nats * counts).sum()
            if gradient:
                gradient.add(chunk, _logit_gradient(s, likelihood, total, goals), 4.0 * counts / total)
        if gradient:
            ctx.save_for_backward(gradient.hidden, gradient.weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        scale = grads[0]
        return d_hidden * scale.to(d_hidden.dtype), d_weight * scale.to(d_weight.dtype), None, None, None


class _TokenLogLikelihoods(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, head: _Head
    ) -> torch.Tensor:
        found = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        totals = torch.empty_like(found)
        for chunk, logits, room in _chunks(hidden, weight):
            s, likelihood = head.exponentials(logits, room)
            goals = _Goals(targets[chunk], head.vocab_start, weight.shape[0])
            totals[chunk], at_target = head.totals(s, likelihood, goals)
            found[chunk] = torch.where(goals.counted, -head.nats(totals[chunk], at_target), 0.0)
        ctx.head = head
        ctx.save_for_backward(hidden, weight, targets, totals)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        hidden, weight, targets, totals = ctx.saved_tensors
        gradient = _Gradient(hidden, weight)
        for chunk, logits, room in _chunks(hidden, weight):
            s, likelihood = ctx.head.exponentials(logits, room)
            goals = _Goals(targets[chunk], ctx.head.vocab_start, weight.shape[0])
            total = totals[chunk]
            counts = torch.where(goals.counted, -grads[0][chunk] / ctx.head.temperature, 0.0)
            gradient.add(chunk, _logit_gradient(s, likelihood, total, goals), 4.0 * counts / total)
        return gradient.hidden, gradient.weight.to(weight.dtype), None, None


def _chunks(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Chunks of the tokens, with raw fp32 logits [n, V_local] and room for as many numbers, which the next reuses."""
    tokens, vocab = hidden.shape[0], weight.shape[0]
    budget = GPU_CHUNK_BYTES if hidden.is_cuda else CPU_CHUNK_BYTES
    rows = max(64, budget // (4 * vocab))
    shape = (2, min(rows, tokens), vocab)
    logits, room = torch.empty(shape, dtype=torch.float32, device=hidden.device).unbind()
    for first in range(0, tokens, rows):
        chunk = slice(first, min(first + rows, tokens))
        count = chunk.stop - first
        logits[:count] = hidden[chunk] @ weight.t()
        yield chunk, logits[:count], room[:count]


class _Goals:
    """The targets [n] of a chunk: which count, which lie among this rank's rows, and where."""

    def __init__(self, targets: torch.Tensor, vocab_start: int, vocab: int) -> None:
        local = targets - vocab_start
        self.counted = targets >= 0
        self.here = (local >= 0) & (local < vocab) & self.counted
        self.index = torch.where(self.here, local, 0).unsqueeze(1)  # [n, 1]


@dataclass(frozen=True)
class _Head:
    """What makes likelihoods of this rank's logits: soft cap, temperature, and this rank's part of the vocabulary."""

    softcap: float
    vocab_start: int
    padding: int
    group: ProcessGroup | None
    temperature: float = 1.0

    @property
    def _range(self) -> float:
        """How far apart the lowest and the highest logit may be."""
        return 2.0 * self.softcap / self.temperature

    def exponentials(self, logits: torch.Tensor, room: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """s in the place of raw logits, and unnormalised likelihoods, of which none is above 1, in `room`."""
        s = logits.mul_(-2.0 / self.softcap).sigmoid_()
        likelihood = torch.mul(s, -self._range, out=room).exp_()
        if self.padding:
            likelihood[:, -self.padding :] = 0.0
        return s, likelihood

    def totals(self, s: torch.Tensor, likelihood: torch.Tensor, goals: _Goals) -> tuple[torch.Tensor, torch.Tensor]:
        """Over the whole vocabulary, on all ranks: sums of the likelihoods [n], and s at the targets [n]."""
        total = likelihood.sum(dim=1)
        at_target = torch.where(goals.here, s.gather(1, goals.index).squeeze(1), 0.0)
        if self.group is not None and dist.get_world_size(self.group) > 1:
            both = torch.stack((total, at_target))
            dist.all_reduce(both, group=self.group)
            total, at_target = both.unbind()
        return total, at_target

    def nats(self, total: torch.Tensor, at_target: torch.Tensor) -> torch.Tensor:
        """Negative log likelihoods [n]."""
        return total.log() + self._range * at_target


def _logit_gradient(s: torch.Tensor, likelihood: torch.Tensor, total: torch.Tensor, goals: _Goals) -> torch.Tensor:
    """The negative log likelihood's gradient by raw logits times total / 4, [n, V_local], in likelihood's place.

    Normalising is left for later: cheaper on what the matrix products take and give than on [n, V_local].
    """
    # d loss / d raw = (probability - is_target) * (1 - tanh^2), where 1 - tanh^2 = 4 s (1 - s)
    likelihood.scatter_add_(1, goals.index, torch.where(goals.here, -total, 0.0).unsqueeze(1))
    torch.ops.aten.sigmoid_backward.grad_input(likelihood, s, grad_input=likelihood)
    return likelihood


class _Gradient:
    """The gradients of hidden [N, E] and weight [V_local, E] (fp32), gathered chunk by chunk."""

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor) -> None:
        self._of = (hidden, weight)
        self.hidden = torch.empty_like(hidden)
        self.weight = torch.zeros_like(weight, dtype=torch.float32)

    def add(self, chunk: slice, d_logits: torch.Tensor, scale: torch.Tensor) -> None:
        """d_logits: [n, V_local], to be multiplied by scale [n]."""
        (hidden, weight), scale = self._of, scale.unsqueeze(1)
        d_logits = d_logits.to(hidden.dtype)
        self.hidden[chunk] = d_logits @ weight * scale
        scaled_hidden = (hidden[chunk] * scale).to(hidden.dtype)
        if hidden.dtype == torch.float32:
            self.weight.addmm_(d_logits.t(), scaled_hidden)
        else:
            self.weight += d_logits.t() @ scaled_hidden
