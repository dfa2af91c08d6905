"""What training changes, as it lies on this rank, and how to bring it together: handed along as one object."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from megatron_iberis.model.parameters import Kind, Shard
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.sharding.exchange import Exchange
from megatron_iberis.sharding.layout import FlatTensor

Cost = Callable[[tuple[int, ...]], float]
MUON, ADAMW = ("momentum",), ("mean", "square")
"""The names of what each optimizer keeps of a tensor, elementwise."""


def muon_for_matrices(kind: Kind) -> tuple[str, ...]:
    """What is kept of each kind of parameter where Muon takes the matrices."""
    return MUON if kind == "matrix" else ADAMW


@dataclass(frozen=True)
class TrainingState:
    """fp32 weights and optimizer state of a run on this rank."""

    layout: list[FlatTensor]
    """The flat tensors that the optimizer updates: the weights."""
    optimizer: MutableMapping[torch.Tensor, dict[str, Any]]
    """The optimizer's state by flat tensor: `MUON` or `ADAMW`, which also has a `step`."""
    shards: dict[str, Shard]
    """This rank's shard of every parameter by canonical name."""
    groups: ParallelGroups
    replicated: bool
    """Every data-parallel rank holds everything: no ZeRO."""
    parts_of: Callable[[Kind], tuple[str, ...]] = muon_for_matrices
    """The names of what the optimizer keeps of a kind of parameter."""
    _exchanges: dict[tuple[Cost, tuple[int, ...]], Exchange] = field(default_factory=dict, init=False, repr=False)

    def exchange(self, tensors: Sequence[torch.Tensor], cost: Cost) -> Exchange:
        """Between these tensors of the layout and full tensors, whose owners are chosen by `cost`.

        Called by all ranks together; made once for the same tensors and cost.
        """
        key = cost, tuple(id(tensor) for tensor in tensors)
        if key not in self._exchanges:
            pieces_of = {id(flat.tensor): flat.pieces for flat in self.layout}
            pieces = [pieces_of[number] for number in key[1]]
            self._exchanges[key] = Exchange(pieces, self.shards, self.groups, self.replicated, cost)
        return self._exchanges[key]
