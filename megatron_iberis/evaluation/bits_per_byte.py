"""Bits per byte on held-out text: the model's loss, free of the tokenizer's choices.

Sum of nats over the target tokens that stand for text, over ln 2 times the UTF-8 bytes of those tokens. Special
tokens stand for none and do not count. A byte piece counts one byte (upstream counts three for most of them).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from megatron_iberis.data.batches import Batch
from megatron_iberis.data.rows import SampleSource
from megatron_iberis.parallel.groups import ParallelGroups


@dataclass(frozen=True)
class TextLoss:
    """Totals over the target tokens that stand for text."""

    nats: float
    tokens: int
    bytes: int

    def __add__(self, other: TextLoss) -> TextLoss:
        return TextLoss(self.nats + other.nats, self.tokens + other.tokens, self.bytes + other.bytes)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens


@torch.no_grad()
def evaluate(
    summed_loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor],
    source: SampleSource,
    samples: int,
    micro_batch: int,
    token_bytes: torch.Tensor,
    groups: ParallelGroups,
    device: torch.device,
) -> TextLoss:
    """The loss over the first `samples` samples of a source; called by all ranks together, the same on all.

    summed_loss(tokens, targets, documents): nats over targets >= 0, of a `Batch`. token_bytes: int64 [V].
    Data-parallel ranks share the samples; all run the same number of micro-batches (under ZeRO stage 3 each
    forward pass is a collective), those past the end with nothing counted.
    """
    nats = torch.zeros((), dtype=torch.float64, device=device)
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    token_bytes = token_bytes.to(device)
    per_round = micro_batch * groups.dp_size
    for first in range(0, samples, per_round):
        start = first + groups.dp_rank * micro_batch
        batch = Batch.of(source.read(min(start, max(0, samples - micro_batch)), micro_batch))
        tokens, targets = batch.tokens.to(device), batch.targets.to(device)
        wanted = _not_yet_counted(start, micro_batch, samples, device) & (targets >= 0)
        lengths = torch.where(wanted, token_bytes[targets.clamp(min=0)], 0)
        targets = torch.where(lengths > 0, targets, -1)
        nats += summed_loss(tokens, targets, batch.documents).double()
        counts += torch.stack(((lengths > 0).sum(), lengths.sum()))
    dist.all_reduce(nats, group=groups.dp)
    dist.all_reduce(counts, group=groups.dp)
    tokens_counted, bytes_counted = counts.tolist()
    return TextLoss(nats.item(), tokens_counted, bytes_counted)


def _not_yet_counted(start: int, count: int, samples: int, device: torch.device) -> torch.Tensor:
    """Rows of a micro-batch that this rank answers for: bool [count, 1].

    The last micro-batch is read from `samples - count` when it would run past the end; its rows below `start`
    were counted before.
    """
    rows = torch.arange(count, device=device) + min(start, max(0, samples - count))
    return ((rows >= start) & (rows < samples)).unsqueeze(1)
