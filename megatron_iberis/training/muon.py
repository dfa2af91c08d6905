"""Muon's orthogonalisation of whole matrices whose gradients lie in pieces on many ranks.

* Each matrix has an owner among all ranks, chosen so that the work is even. Ranks send their pieces of the
  gradient to the owners (one all-to-all), the owners orthogonalise, the results go back the same way.
* So the update is that of one process whatever tensor parallelism and ZeRO do, no work is done twice, and each
  rank sends and receives about 2 / ranks of the matrices, in the precision of Newton-Schulz.

Source of the quintic: Keller Jordan, Muon, as nanochat runs it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from megatron_iberis.model.parameters import Shard
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.training.layout import Piece

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: torch.Tensor, steps: int) -> torch.Tensor:
    """The nearest semi-orthogonal matrices, roughly: `steps` of Newton-Schulz. [N, rows, cols] -> the same.

    Singular values end up in about [0.7, 1.2]. The precision is that of the input; an all-zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


@dataclass(frozen=True)
class Matrix:
    """What has to be known of a full matrix to put it together from tensor-parallel shards."""

    shape: tuple[int, int]
    dim: int | None
    """Along which it is split over tensor-parallel ranks; None: each holds it whole."""

    def from_shards(self, flat: torch.Tensor, parts: int) -> torch.Tensor:
        """Flattened shards one after the other, [rows x cols] -> [rows, cols]."""
        rows, cols = self.shape
        if self.dim == 1:
            return flat.view(parts, rows, cols // parts).transpose(0, 1).reshape(rows, cols)
        return flat.view(rows, cols)

    def to_shards(self, full: torch.Tensor, parts: int) -> torch.Tensor:
        """The inverse of `from_shards`."""
        rows, cols = self.shape
        if self.dim == 1:
            return full.view(rows, parts, cols // parts).transpose(0, 1).reshape(-1)
        return full.reshape(-1)


@dataclass(frozen=True)
class _Route:
    """A run of elements between a rank's flat tensors and an owner's matrix.

    The order of routes, by this tuple, is the order in the messages: both ends sort alike.
    """

    name: str
    shard: int
    start: int
    length: int
    holder: int
    tensor: int
    flat_start: int


class MuonExchange:
    """Newton-Schulz for one list of flat tensors, the same list (with other pieces) on every rank.

    Built by all ranks together; `orthogonalized` is then called by all ranks together, once a step.
    `replicated`: every data-parallel rank holds all pieces (no ZeRO).
    """

    def __init__(
        self,
        pieces: Sequence[Iterable[Piece]],
        shards: dict[str, Shard],
        groups: ParallelGroups,
        replicated: bool,
    ) -> None:
        self.rank, self.world, self.parts = dist.get_rank(), dist.get_world_size(), groups.tensor_size
        own = [
            _Route(p.name, groups.tensor_rank, p.start, p.length, self.rank, tensor, p.flat_start)
            for tensor, tensor_pieces in enumerate(pieces)
            for p in tensor_pieces
        ]
        everything = _share(own)
        self.matrices = {
            name: Matrix((shards[name].shape[0], shards[name].shape[1]), shards[name].dim)
            for name in sorted({route.name for route in everything})
        }
        owners = self._owners()
        self.owned = [name for name in self.matrices if owners[name] == self.rank]

        def is_source(route: _Route) -> bool:
            """Whether the holder of this copy is the one that sends it: the owner's own replica does."""
            owner = owners[route.name]
            same_tensor_rank = route.holder % self.parts == owner % self.parts
            same_data_rank = route.holder // self.parts == owner // self.parts
            split = self.matrices[route.name].dim is not None
            return (split or same_tensor_rank) and (same_data_rank or not replicated)

        sources = [route for route in everything if is_source(route)]
        self.gather = self._messages(sources, owners)
        self.scatter = self._messages(everything, owners)

    def orthogonalized(self, gradients: Sequence[torch.Tensor], steps: int, dtype: torch.dtype) -> list[torch.Tensor]:
        """The update directions, laid out as the gradients: orthogonal factors x sqrt(max(1, rows / cols))."""
        outgoing, incoming, sent, received = self.gather
        message = torch.cat(
            [gradients[r.tensor].view(-1)[r.flat_start :][: r.length] for r in outgoing]
            or [gradients[0].new_empty(0)]
        ).to(dtype)
        message = self._exchange(message, sent, received)
        staging = {name: message.new_empty(math.prod(self.matrices[name].shape)) for name in self.owned}
        for route, part in zip(incoming, message.split([r.length for r in incoming]), strict=True):
            self._run(staging, route).copy_(part)
        self._orthogonalize(staging, steps)

        incoming, outgoing, received, sent = self.scatter
        message = torch.cat([self._run(staging, r) for r in outgoing] or [message.new_empty(0)])
        message = self._exchange(message, sent, received)
        updates = [torch.zeros_like(g) for g in gradients]
        for route, part in zip(incoming, message.split([r.length for r in incoming]), strict=True):
            updates[route.tensor].view(-1)[route.flat_start :][: route.length].copy_(part)
        return updates

    def _owners(self) -> dict[str, int]:
        """The rank that orthogonalises each matrix: the dearest first, always to the least loaded rank."""
        load = [0.0] * self.world

        def cost(name: str) -> float:
            rows, cols = self.matrices[name].shape
            return float(rows * cols * min(rows, cols))

        owners = {}
        for name in sorted(self.matrices, key=lambda n: (-cost(n), n)):
            owner = min(range(self.world), key=lambda r: (load[r], r))
            owners[name], load[owner] = owner, load[owner] + cost(name)
        return owners

    def _messages(
        self, routes: Iterable[_Route], owners: dict[str, int]
    ) -> tuple[list[_Route], list[_Route], list[int], list[int]]:
        """(routes this rank holds, by owner; routes this rank owns, by holder; elements a rank of each)."""
        ordered = sorted(routes, key=lambda r: (r.name, r.shard, r.start, r.holder))
        held: dict[int, list[_Route]] = defaultdict(list)
        owned: dict[int, list[_Route]] = defaultdict(list)
        for route in ordered:
            if route.holder == self.rank:
                held[owners[route.name]].append(route)
            if owners[route.name] == self.rank:
                owned[route.holder].append(route)
        ranks = range(self.world)
        return (
            [route for r in ranks for route in held[r]],
            [route for r in ranks for route in owned[r]],
            [sum(route.length for route in held[r]) for r in ranks],
            [sum(route.length for route in owned[r]) for r in ranks],
        )

    def _exchange(self, message: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
        if self.world == 1:
            return message
        reply = message.new_empty(sum(received))
        dist.all_to_all_single(reply, message, received, sent)
        return reply

    def _run(self, staging: dict[str, torch.Tensor], route: _Route) -> torch.Tensor:
        matrix = self.matrices[route.name]
        shard = route.shard if matrix.dim is not None else 0
        first = shard * (math.prod(matrix.shape) // self.parts) + route.start
        return staging[route.name][first : first + route.length]

    def _orthogonalize(self, staging: dict[str, torch.Tensor], steps: int) -> None:
        """In place, matrices of one shape together: one batched product instead of many small ones."""
        by_shape: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name in self.owned:
            by_shape[self.matrices[name].shape].append(name)
        for (rows, cols), names in by_shape.items():
            batch = torch.stack([self.matrices[n].from_shards(staging[n], self.parts) for n in names])
            result = orthogonalize(batch, steps).mul_(math.sqrt(max(1.0, rows / cols)))
            for name, matrix in zip(names, result, strict=True):
                staging[name] = self.matrices[name].to_shards(matrix, self.parts)


def _share(own: list[_Route]) -> list[_Route]:
    """The routes of all ranks."""
    gathered: list[list[_Route] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    return [route for routes in gathered if routes for route in routes]
