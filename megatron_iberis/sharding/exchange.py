"""Brings full tensors together on one rank each, from pieces that lie on many, and takes them back.

* Each tensor has an owner among all ranks: one that holds much of it already, as long as the load is even.
* What lies whole on its owner stays where it is (`in_place`). Of all others ranks send their pieces to the owners and
  get them back by one all-to-all (`gather_cut`, `scatter_cut`).
* Works for any mix of tensor parallelism and ZeRO, since it looks at nothing but the pieces.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from megatron_iberis.model.parameters import Shard
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.start import training_device
from megatron_iberis.sharding.layout import Piece

_UNEVEN = 1.1
"""The largest load, by the mean, that a rank is given for being near."""


@dataclass(frozen=True, order=True)
class _Route:
    """A run of elements between a holder's flat tensor and an owner's full tensor.

    The order of routes is their order in the messages: both ends sort alike.
    """

    name: str
    shard: int
    start: int
    holder: int
    length: int
    tensor: int
    flat_start: int


@dataclass(frozen=True)
class _Messages:
    """Who sends what in one direction. `held` and `owned` are sorted by the rank at the other end."""

    held: list[_Route]
    owned: list[_Route]
    held_sizes: list[int]
    owned_sizes: list[int]


class Exchange:
    """Pieces in a list of flat tensors (the same list, with other pieces, on every rank) <-> full tensors.

    Built by all ranks together, as every call is made by all ranks together.
    replicated: every data-parallel rank holds all pieces (no ZeRO), so that one copy has to be chosen.
    cost: what owning a full tensor of a shape costs; the sum is evened out over the ranks.
    """

    def __init__(
        self,
        pieces: Sequence[Iterable[Piece]],
        shards: dict[str, Shard],
        groups: ParallelGroups,
        replicated: bool,
        cost: Callable[[tuple[int, ...]], float],
    ) -> None:
        self.device = training_device()  # flat tensors may be offloaded to the CPU: messages go by NCCL all the same
        self.rank, self.world, self.parts = dist.get_rank(), dist.get_world_size(), groups.tp_size
        own = [
            _Route(p.name, groups.tp_rank, p.start, self.rank, p.length, tensor, p.flat_start)
            for tensor, tensor_pieces in enumerate(pieces)
            for p in tensor_pieces
        ]
        everything = sorted(_share(own))
        self.shards = {name: shards[name] for name in sorted({route.name for route in everything})}
        held: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for route in everything:
            held[route.name][route.holder] += route.length
        costs = {name: cost(shard.global_shape) for name, shard in self.shards.items()}
        self.owners = assign(costs, {} if replicated else held, self.world)
        self.owned = [name for name in self.shards if self.owners[name] == self.rank]
        runs = Counter(route.name for route in everything)
        self._whole = {route.name: route for route in everything if runs[route.name] == 1 and self._is_whole(route)}
        self._gaps = list(_gaps(pieces))

        def is_source(route: _Route) -> bool:
            """Of several ranks that hold the same run, the one in the owner's own replica sends it."""
            owner = self.owners[route.name]
            same_tensor_rank = route.holder % self.parts == owner % self.parts
            same_data_rank = route.holder // self.parts == owner // self.parts
            split = self.shards[route.name].dim is not None
            return (split or same_tensor_rank) and (same_data_rank or not replicated)

        others = [route for route in everything if route.name not in self._whole]
        self._in = self._messages([route for route in others if is_source(route)])
        self._out = self._messages(others)

    def in_place(self, flats: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The full tensors that this rank owns and alone holds, by canonical name, as views of its flat tensors."""
        own = [route for route in self._whole.values() if route.holder == self.rank]
        return {route.name: _held(flats, route).view(self.shards[route.name].global_shape) for route in own}

    def gather(self, flats: Sequence[torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """All full tensors that this rank owns, by canonical name, from all ranks' flat tensors, as copies."""
        own = {name: view.to(self.device, dtype, copy=True) for name, view in self.in_place(flats).items()}
        return self.gather_cut(flats, dtype) | own

    def clear_gaps(self, flats: Sequence[torch.Tensor]) -> None:
        """Zeros what no piece covers."""
        for tensor, start, end in self._gaps:
            flats[tensor].view(-1)[start:end].zero_()

    def gather_cut(self, flats: Sequence[torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Of them those that do not lie whole on this rank."""
        plan = self._in
        runs = [_held(flats, route) for route in plan.held]
        message = self._send(_message(runs, dtype, self.device), plan.held_sizes, plan.owned_sizes)
        owned = [name for name in self.owned if name not in self._whole]
        staging = {name: message.new_zeros(self._staged_numel(name)) for name in owned}
        position = 0
        for route in plan.owned:
            self._run(staging, route).copy_(message[position : position + route.length])
            position += route.length
        return {name: self._assemble(name, flat) for name, flat in staging.items()}

    def scatter_cut(self, full: dict[str, torch.Tensor], flats: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
        """Writes these full tensors of the owners into all ranks' flat tensors, every copy of a piece alike."""
        plan = self._out
        staging = {name: self._take_apart(name, tensor) for name, tensor in full.items()}
        runs = [self._run(staging, route) for route in plan.owned]
        message = self._send(_message(runs, dtype, self.device), plan.owned_sizes, plan.held_sizes)
        position = 0
        for route in plan.held:
            _held(flats, route).copy_(message[position : position + route.length])
            position += route.length

    def _is_whole(self, route: _Route) -> bool:
        """Whether that run is a full tensor, on its owner."""
        shard = self.shards[route.name]
        full = shard.local_shape == shard.global_shape and route.length == math.prod(shard.global_shape)
        return full and route.holder == self.owners[route.name]

    def _messages(self, routes: Iterable[_Route]) -> _Messages:
        held: dict[int, list[_Route]] = defaultdict(list)
        owned: dict[int, list[_Route]] = defaultdict(list)
        for route in routes:
            owner = self.owners[route.name]
            if route.holder == self.rank:
                held[owner].append(route)
            if owner == self.rank:
                owned[route.holder].append(route)
        ranks = range(self.world)
        return _Messages(
            [route for r in ranks for route in held[r]],
            [route for r in ranks for route in owned[r]],
            [sum(route.length for route in held[r]) for r in ranks],
            [sum(route.length for route in owned[r]) for r in ranks],
        )

    def _send(self, message: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
        if self.world == 1:
            return message
        reply = message.new_empty(sum(received))
        dist.all_to_all_single(reply, message, received, sent)
        return reply

    # A full tensor is staged as its tensor-parallel shards, padding included, flattened one after the other.

    def _staged_numel(self, name: str) -> int:
        shard = self.shards[name]
        return math.prod(shard.local_shape) * (1 if shard.dim is None else self.parts)

    def _run(self, staging: dict[str, torch.Tensor], route: _Route) -> torch.Tensor:
        shard = self.shards[route.name]
        first = route.start + (0 if shard.dim is None else route.shard * math.prod(shard.local_shape))
        return staging[route.name][first : first + route.length]

    def _assemble(self, name: str, staged: torch.Tensor) -> torch.Tensor:
        shard = self.shards[name]
        if shard.dim is None or self.parts == 1:
            return staged.view(shard.local_shape)[: shard.global_shape[0]]
        parts = staged.view(self.parts, *shard.local_shape).unbind()
        return torch.cat(parts, dim=shard.dim).narrow(shard.dim, 0, shard.global_shape[shard.dim])

    def _take_apart(self, name: str, full: torch.Tensor) -> torch.Tensor:
        shard = self.shards[name]
        if shard.dim is None or self.parts == 1:
            return _padded(full, 0, shard.local_shape[0]).reshape(-1)
        whole = _padded(full, shard.dim, shard.local_shape[shard.dim] * self.parts)
        return torch.stack(whole.chunk(self.parts, dim=shard.dim)).view(-1)


def _held(flats: Sequence[torch.Tensor], route: _Route) -> torch.Tensor:
    """The run in its holder's flat tensor, a view."""
    return flats[route.tensor].view(-1)[route.flat_start : route.flat_start + route.length]


def _gaps(pieces: Sequence[Iterable[Piece]]) -> Iterator[tuple[int, int, int | None]]:
    """(tensor, start, end) of the runs that no piece covers; None: to the tensor's end."""
    for tensor, held in enumerate(pieces):
        end = 0
        for piece in sorted(held, key=lambda p: p.flat_start):
            if piece.flat_start > end:
                yield tensor, end, piece.flat_start
            end = piece.flat_start + piece.length
        yield tensor, end, None


def _padded(tensor: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    missing = size - tensor.shape[dim]
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat((tensor, tensor.new_zeros(shape)), dim=dim)


def _message(runs: list[torch.Tensor], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if not runs:
        return torch.empty(0, dtype=dtype, device=device)
    return torch.cat([run.to(dtype) for run in runs]).to(device)


def assign(costs: Mapping[str, float], held: Mapping[str, Mapping[int, int]], ranks: int) -> dict[str, int]:
    """A rank for each name, the loads even: the dearest first, to the one that holds most of it while its load stays
    within a tenth above the mean, else to the least loaded rank.

    costs: of owning each; held: the elements of each that a rank has, by rank.
    """
    loads = [0.0] * ranks
    most = _UNEVEN * sum(costs.values()) / ranks
    owners = {}
    for name in sorted(costs, key=lambda n: (-costs[n], n)):
        elements = held.get(name, {})
        near = sorted((r for r in elements if loads[r] + costs[name] <= most), key=lambda r: (-elements[r], r))
        owner = near[0] if near else min(range(ranks), key=lambda r: (loads[r], r))
        owners[name] = owner
        loads[owner] += costs[name]
    return owners


def connect(device: torch.device) -> None:
    """A first all-to-all of one number each, called by all ranks: what takes minutes at many ranks is done then."""
    world = dist.get_world_size()
    if world > 1:
        sent = torch.zeros(world, device=device)
        dist.all_to_all_single(torch.empty_like(sent), sent)


def _share(own: list[_Route]) -> list[_Route]:
    """The routes of all ranks."""
    gathered: list[list[_Route]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, own)
    return [route for routes in gathered for route in routes]
