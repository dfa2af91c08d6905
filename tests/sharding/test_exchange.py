"""Full tensors out of pieces and back: for any cut, any mix of tensor and data parallelism."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_iberis.model.parameters import Shard
from megatron_iberis.sharding.exchange import Exchange, assign
from megatron_iberis.sharding.layout import Piece
from tests.support.ranks import Ranks, groups_of

quickly = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Spec:
    """A full tensor: `padded` indices along dim 0 when it is split there, of which shape[0] are real."""

    shape: tuple[int, ...]
    dim: int | None
    padded: int


def specs(rng: random.Random, parts: int) -> dict[str, Spec]:
    found = {}
    for i in range(rng.randint(1, 7)):
        shape = [rng.randint(1, 9) for _ in range(rng.choice((2, 2, 2, 3)))]
        dim = rng.choice((None, 0, 1))
        if dim is not None:
            shape[dim] *= parts
        padded = shape[0]
        if dim == 0 and shape[0] > 1 and rng.random() < 0.5:
            shape[0] -= rng.randint(1, min(parts, shape[0] - 1))  # a vocabulary, say, that the parts do not divide
        found[f"t{i}"] = Spec(tuple(shape), dim, padded)
    return found


def full(spec: Spec, name: str) -> torch.Tensor:
    values = torch.arange(math.prod(spec.shape), dtype=torch.float32).view(spec.shape)
    return values + 1 + 1000 * int(name[1:])


def part(spec: Spec, tensor: torch.Tensor, rank: int, parts: int) -> torch.Tensor:
    """A tensor-parallel rank's part, written without the code under test."""
    if spec.dim is None:
        return tensor
    padding = torch.zeros(spec.padded - spec.shape[0], *spec.shape[1:]) if spec.dim == 0 else tensor[:0]
    return torch.cat((tensor, padding)).chunk(parts, spec.dim)[rank]


def cut(rng: random.Random, local: dict[str, torch.Tensor], holders: int) -> list[list[tuple[str, int, int]]]:
    """(name, start, length) runs of the local tensors, cut at any place and dealt out to `holders` ranks."""
    dealt: list[list[tuple[str, int, int]]] = [[] for _ in range(holders)]
    for name, tensor in local.items():
        borders = sorted({0, tensor.numel(), *(rng.randint(0, tensor.numel()) for _ in range(rng.randint(0, 3)))})
        for start, end in itertools.pairwise(borders):
            dealt[rng.randrange(holders)].append((name, start, end - start))
    return dealt


def lay_out(runs: list[tuple[str, int, int]]) -> tuple[list[list[Piece]], list[torch.Tensor]]:
    """The runs in three flat tensors, in any order and with gaps: each rank's own business."""
    private = random.Random(dist.get_rank())
    pieces: list[list[Piece]] = [[], [], []]
    sizes = [0, 0, 0]
    for name, start, length in private.sample(runs, len(runs)):
        flat, gap = private.randrange(3), private.randint(0, 2)
        pieces[flat].append(Piece(name, start, length, sizes[flat] + gap))
        sizes[flat] += gap + length
    return pieces, [torch.full((size,), -1.0) for size in sizes]


def round_trip(seed: int, parts: int, replicated: bool, dtype: torch.dtype) -> dict[str, Any]:
    """Runs on a rank: gathers, checks what came, scatters something else, checks again; returns the owners."""
    rng, groups = random.Random(seed), groups_of(parts)  # the same draws on every rank
    tensors = specs(rng, parts)
    wanted = {name: full(spec, name) for name, spec in tensors.items()}
    local = {name: part(spec, wanted[name], groups.tp_rank, parts) for name, spec in tensors.items()}
    shards = {
        name: Shard("matrix", s.shape, tuple(local[name].shape), s.dim, 0, name, torch.nn.Parameter(local[name]))
        for name, s in tensors.items()
    }
    dealt = cut(rng, local, 1 if replicated else groups.dp_size)
    pieces, flats = lay_out(dealt[0 if replicated else groups.dp_rank])
    gaps = [torch.ones_like(flat, dtype=torch.bool) for flat in flats]

    def runs_and(tensors: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each run in the flat tensors beside what belongs there."""
        found = []
        for flat, gap, held in zip(flats, gaps, pieces, strict=True):
            for p in held:
                place = slice(p.flat_start, p.flat_start + p.length)
                gap[place] = False
                found.append((flat[place], tensors[p.name].flatten()[p.start : p.start + p.length]))
        return found

    for run, values in runs_and(local):
        run.copy_(values)
    exchange = Exchange(pieces, shards, groups, replicated, lambda shape: float(math.prod(shape)))
    here, sent = exchange.in_place(flats), exchange.gather_cut(flats, dtype)
    assert sorted([*here, *sent]) == exchange.owned
    for name, tensor in (here | sent).items():
        assert torch.equal(tensor.to(dtype), wanted[name].to(dtype)), name
    everything = exchange.gather(flats, dtype)
    assert sorted(everything) == exchange.owned
    for name, tensor in everything.items():
        assert torch.equal(tensor, wanted[name].to(dtype)), name
        assert name not in here or tensor.data_ptr() != here[name].data_ptr(), "a copy"

    changed = {name: 2 * tensor + 1 for name, tensor in wanted.items()}
    for name, view in here.items():
        view.copy_(changed[name].to(dtype))
    exchange.scatter_cut({name: changed[name] for name in sent}, flats, dtype)
    after = {name: part(spec, changed[name], groups.tp_rank, parts) for name, spec in tensors.items()}
    for run, values in runs_and(after):
        assert torch.equal(run, values.to(dtype).float())
    for flat, gap in zip(flats, gaps, strict=True):
        assert (flat[gap] == -1.0).all(), "what no piece covers is left alone"
    exchange.clear_gaps(flats)
    for run, values in runs_and(after):
        assert torch.equal(run, values.to(dtype).float())
    for flat, gap in zip(flats, gaps, strict=True):
        assert (flat[gap] == 0.0).all()
    sizes = {name: math.prod(spec.shape) for name, spec in tensors.items()}
    return {"owners": exchange.owners, "owned": exchange.owned, "sizes": sizes, "here": sorted(here)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("parts", "replicated"), [(2, False), (2, True), (1, False), (1, True)])
@quickly
@given(seed=st.integers(0, 2**32))
def test_gather_and_scatter_for_any_cut(
    two_ranks: Ranks, parts: int, replicated: bool, dtype: torch.dtype, seed: int
) -> None:
    first, second = two_ranks(round_trip, seed, parts, replicated, dtype)
    assert first["owners"] == second["owners"]
    assert sorted(first["owned"] + second["owned"]) == sorted(first["sizes"])
    loads = [sum(first["sizes"][name] for name in rank["owned"]) for rank in (first, second)]
    allowed = max(max(first["sizes"].values()), 0.1 * sum(loads))
    assert abs(loads[0] - loads[1]) <= allowed * 1.001, "the owners' loads are even"


@quickly
@given(seed=st.integers(0, 2**32))
def test_one_process_needs_no_messages(one_rank: Ranks, seed: int) -> None:
    found = one_rank(round_trip, seed, 1, False, torch.float32)[0]
    assert sorted(found["owned"]) == sorted(found["sizes"])


def whole_on_their_ranks(count: int) -> list[list[str]]:
    """Runs on a rank: what is in place of equal tensors strung together and cut into one run a rank, as ZeRO does."""
    groups, size = groups_of(1), 12
    shards = {
        name: Shard("matrix", (3, 4), (3, 4), None, 0, name, torch.nn.Parameter(torch.zeros(3, 4)))
        for name in (f"t{number}" for number in range(count))
    }
    first = groups.dp_rank * count * size // 2
    pieces = []
    for number, name in enumerate(shards):
        begin, end = max(number * size, first), min((number + 1) * size, first + count * size // 2)
        if begin < end:
            pieces.append(Piece(name, begin - number * size, end - begin, begin - first))
    exchange = Exchange([pieces], shards, groups, False, lambda shape: float(math.prod(shape)))
    flat = torch.arange(count * size // 2, dtype=torch.float32)
    return [sorted(exchange.in_place([flat])), sorted(exchange.gather_cut([flat], torch.float32))]


def test_only_what_a_border_cuts_is_sent(two_ranks: Ranks) -> None:
    (here, sent), (here_too, sent_too) = two_ranks(whole_on_their_ranks, 21)
    names = [f"t{number}" for number in range(21)]
    assert (here, sent + sent_too, here_too) == (sorted(names[:10]), names[10:11], sorted(names[11:]))


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    cuts=st.lists(st.floats(0, 1), max_size=7, unique=True),
)
def test_owners_are_ranks_that_hold_most_while_the_load_is_even(sizes: list[int], cuts: list[float]) -> None:
    """Tensors strung together and cut into one run a rank, as ZeRO does."""
    borders = [0.0, *sorted(cut * sum(sizes) for cut in cuts), float(sum(sizes))]
    costs = {f"t{number:02}": float(size) for number, size in enumerate(sizes)}
    held: dict[str, dict[int, int]] = {}
    first = 0
    for name, size in zip(costs, sizes, strict=True):
        inside = {
            rank: int(min(first + size, end) - max(first, start))
            for rank, (start, end) in enumerate(itertools.pairwise(borders))
        }
        held[name] = {rank: length for rank, length in inside.items() if length > 0}
        first += size
    ranks = len(borders) - 1
    owners = assign(costs, held, ranks)
    loads = [sum(costs[name] for name in costs if owners[name] == rank) for rank in range(ranks)]
    mean = sum(sizes) / ranks
    assert max(loads) <= max(1.1 * mean, mean + max(sizes)) + 1e-6
    for name in costs:
        if owners[name] not in held[name]:  # then none that holds some had room for it
            dearer = [n for n in costs if (-costs[n], n) < (-costs[name], name)]
            for rank in held[name]:
                assert sum(costs[n] for n in dearer if owners[n] == rank) + costs[name] > 1.1 * mean - 1e-6


def test_evenly_cut_layers_stay_where_they_are() -> None:
    """Eight ranks with six layers of equal matrices each, a border in the middle of one here and there."""
    costs = {f"layer{number:02}": 1.0 for number in range(48)}
    held = {name: {number // 6: 90, (number // 6 + 1) % 8: 10} for number, name in enumerate(costs)}
    assert assign(costs, held, 8) == {name: number // 6 for number, name in enumerate(costs)}
