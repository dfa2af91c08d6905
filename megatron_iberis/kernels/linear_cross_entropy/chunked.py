"""Head, soft cap and cross entropy over a vocabulary that is split over tensor-parallel ranks.

* Tokens are taken in chunks: [N, V] logits never exist (8 GB in bf16 for d20's micro-batch).
* The gradient is worked out in the forward pass, in place, while the chunk's logits are at hand: no second
  matrix product to get them back.
* What lies between the products is one pass over the raw logits, a `SoftcapPass`: sums of likelihoods, and the
  gradient up to a factor of the row, which is left to what the matrix products take and give. It needs no maximum:
  with s = sigmoid(-2 logit / softcap) the capped logit is softcap - 2 softcap s, so exp(-2 softcap s) is a
  likelihood that can neither overflow nor vanish in fp32. The ranks agree on one number a row, the sum.
* Log-likelihoods of single tokens get their factors only after the forward pass: there, and only there, the
  backward pass works out the logits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed import ProcessGroup

CPU_CHUNK_BYTES = 1 << 23
GPU_CHUNK_BYTES = 1 << 30
LEAST_ROWS = 64


class SoftcapPass(Protocol):
    """One pass over raw logits. With s as above and likelihood = exp(-range s):"""

    def __call__(
        self, logits: torch.Tensor, targets: torch.Tensor, softcap: float, range_: float, padding: int, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of the likelihoods [n], and s at the targets [n], 0 where there is none; both at least fp32.

        logits: [n, V], rows one after the other; the last `padding` of each row are no tokens, likelihood 0. targets:
        int64 [n], places in the row, or outside of it. gradient: likelihood s (1 - s) takes each logit's place.
        """
        ...


def softcapped_logits(hidden: torch.Tensor, weight: torch.Tensor, softcap: float) -> torch.Tensor:
    """hidden: [..., E], weight: [V, E] -> fp32 [..., V]."""
    return softcap * torch.tanh(F.linear(hidden, weight).float() / softcap)


def linear_cross_entropy(
    softcap_pass: SoftcapPass,
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
    head = _Head(softcap_pass, softcap, vocab_start, padding, group)
    loss: torch.Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, weights, head)
    return loss


def token_log_likelihoods(
    softcap_pass: SoftcapPass,
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
    head = _Head(softcap_pass, softcap, vocab_start, padding, group, temperature)
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
        for chunk, logits in _chunks(hidden, weight):
            goals = _Goals(targets[chunk], head.vocab_start, weight.shape[0])
            total, at_target = head.likelihoods(logits, goals, gradient is not None)
            counts = goals.counted if weights is None else torch.where(goals.counted, weights[chunk], 0.0)
            nats = torch.where(goals.counted, head.nats(total, at_target), 0.0)
            loss += (nats if weights is None else nats * counts).sum()
            if gradient:
                head.finish(logits, goals, total, at_target)
                gradient.add(chunk, logits, 4.0 * counts / total)
        if gradient:
            ctx.save_for_backward(gradient.hidden, gradient.of_weight())
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * grads[0], d_weight * grads[0], None, None, None  # a scalar does not widen bf16


class _TokenLogLikelihoods(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, head: _Head
    ) -> torch.Tensor:
        found = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        totals = torch.empty_like(found)
        for chunk, logits in _chunks(hidden, weight):
            goals = _Goals(targets[chunk], head.vocab_start, weight.shape[0])
            totals[chunk], at_target = head.likelihoods(logits, goals, False)
            found[chunk] = torch.where(goals.counted, -head.nats(totals[chunk], at_target), 0.0)
        ctx.head = head
        ctx.save_for_backward(hidden, weight, targets, totals)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        hidden, weight, targets, totals = ctx.saved_tensors
        head, gradient = ctx.head, _Gradient(hidden, weight)
        for chunk, logits in _chunks(hidden, weight):
            goals = _Goals(targets[chunk], head.vocab_start, weight.shape[0])
            _, at_target = head.own_likelihoods(logits, goals, True)
            head.finish(logits, goals, totals[chunk], at_target)
            counts = torch.where(goals.counted, -grads[0][chunk] / head.temperature, 0.0)
            gradient.add(chunk, logits, 4.0 * counts / totals[chunk])
        return gradient.hidden, gradient.of_weight(), None, None


def chunk_rows(width: int, vocab: int, element_size: int, budget: int) -> int:
    """Tokens of a chunk whose logits take `budget` bytes. But not less than the width: the gradient of the weight is
    gone through once a chunk, and down to there a chunk's logits are not more than it."""
    return max(LEAST_ROWS, width, budget // (element_size * vocab))


def _chunks(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Chunks of the tokens, with raw logits [n, V_local] in memory that the next one's take."""
    tokens, vocab = hidden.shape[0], weight.shape[0]
    budget = GPU_CHUNK_BYTES if hidden.is_cuda else CPU_CHUNK_BYTES
    rows = chunk_rows(hidden.shape[1], vocab, hidden.element_size(), budget)
    logits = hidden.new_empty(min(rows, tokens), vocab)
    for first in range(0, tokens, rows):
        chunk = slice(first, min(first + rows, tokens))
        yield chunk, torch.mm(hidden[chunk], weight.t(), out=logits[: chunk.stop - first])


class _Goals:
    """The targets [n] of a chunk: which count, which lie among this rank's rows, and where."""

    def __init__(self, targets: torch.Tensor, vocab_start: int, vocab: int) -> None:
        self.counted = targets >= 0
        self.local = torch.where(self.counted, targets - vocab_start, -1)
        self.here = (self.local >= 0) & (self.local < vocab)
        self.index = torch.where(self.here, self.local, 0).unsqueeze(1)  # [n, 1]


@dataclass(frozen=True)
class _Head:
    """What makes likelihoods of this rank's logits: soft cap, temperature, and this rank's part of the vocabulary."""

    softcap_pass: SoftcapPass
    softcap: float
    vocab_start: int
    padding: int
    group: ProcessGroup | None
    temperature: float = 1.0

    @property
    def _range(self) -> float:
        """How far apart the lowest and the highest logit may be."""
        return 2.0 * self.softcap / self.temperature

    def own_likelihoods(
        self, logits: torch.Tensor, goals: _Goals, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the pass gives, of this rank's part of the vocabulary."""
        return self.softcap_pass(logits, goals.local, self.softcap, self._range, self.padding, gradient)

    def likelihoods(self, logits: torch.Tensor, goals: _Goals, gradient: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The same over the whole vocabulary, on all ranks."""
        total, at_target = self.own_likelihoods(logits, goals, gradient)
        if self.group is not None and dist.get_world_size(self.group) > 1:
            both = torch.stack((total, at_target))
            dist.all_reduce(both, group=self.group)
            total, at_target = both.unbind()
        return total, at_target

    def nats(self, total: torch.Tensor, at_target: torch.Tensor) -> torch.Tensor:
        """Negative log likelihoods [n]."""
        return total.log() + self._range * at_target

    def finish(self, logits: torch.Tensor, goals: _Goals, total: torch.Tensor, at_target: torch.Tensor) -> None:
        """Makes of what the pass has left the negative log likelihood's gradient by raw logits times total / 4.

        d loss / d raw = (likelihood / total - is_target) (1 - tanh^2), where 1 - tanh^2 = 4 s (1 - s). Normalising is
        left for later: cheaper on what the matrix products take and give than on [n, V_local].
        """
        likelihood = torch.exp(-self._range * at_target)
        at_target = ((likelihood - total) * at_target * (1.0 - at_target)).to(logits.dtype).unsqueeze(1)
        others = logits.gather(1, goals.index)
        logits.scatter_(1, goals.index, torch.where(goals.here.unsqueeze(1), at_target, others))


class _Gradient:
    """The gradients of hidden [N, E] and weight [V_local, E], gathered chunk by chunk: the latter in fp32 at least,
    but for a single chunk's on a CPU."""

    def __init__(self, hidden: torch.Tensor, weight: torch.Tensor) -> None:
        self._of = (hidden, weight)
        self.hidden = torch.empty_like(hidden)
        self.weight: torch.Tensor | None = None

    def add(self, chunk: slice, d_logits: torch.Tensor, scale: torch.Tensor) -> None:
        """d_logits: [n, V_local], to be multiplied by scale [n]."""
        (hidden, weight), scale = self._of, scale.unsqueeze(1)
        self.hidden[chunk] = d_logits @ weight * scale
        scaled_hidden = (hidden[chunk] * scale).to(hidden.dtype)
        wide = torch.promote_types(weight.dtype, torch.float32)
        if hidden.is_cuda and hidden.dtype != wide:  # the product itself in fp32
            if self.weight is None:
                self.weight = torch.zeros_like(weight, dtype=wide)
            torch.addmm(self.weight, d_logits.t(), scaled_hidden, out_dtype=wide, out=self.weight)
        elif self.weight is None:
            self.weight = d_logits.t() @ scaled_hidden
        elif hidden.dtype == wide:
            self.weight.addmm_(d_logits.t(), scaled_hidden)
        else:
            self.weight = self.weight.to(wide).add_(d_logits.t() @ scaled_hidden)

    def of_weight(self) -> torch.Tensor:
        """In the weight's dtype."""
        weight = self._of[1]
        return torch.zeros_like(weight) if self.weight is None else self.weight.to(weight.dtype)
