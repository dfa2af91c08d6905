"""Muon's update directions, in the gradients' place."""

from __future__ import annotations

import math
from typing import Any

import torch

from megatron_iberis.model.parameters import Shard
from megatron_iberis.sharding.exchange import Exchange
from megatron_iberis.sharding.layout import Piece
from megatron_iberis.training.muon import muon_directions
from tests.support.ranks import Ranks, groups_of
from tests.training.test_newton_schulz import SHAPES, quintic, random


def directions(shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Runs on one rank: Muon's directions for a random gradient of each shape, two matrices in a flat tensor."""
    groups = groups_of(1)
    gradients = {f"m{i}": random(*shape, seed=i) for i, shape in enumerate(shapes)}
    shards: dict[str, Shard] = {}
    pieces: list[Any] = []
    flats = []
    for name, gradient in gradients.items():
        shape = tuple(gradient.shape)
        shards[name] = Shard("matrix", shape, shape, None, 0, name, torch.nn.Parameter(gradient))
        pieces.append((Piece(name, 0, gradient.numel(), 3),))
        flats.append(torch.cat((torch.full((3,), 7.0), gradient.flatten())))
    exchange = Exchange(pieces, shards, groups, False, lambda shape: float(math.prod(shape)))
    muon_directions(flats, exchange, 5, torch.float32)
    return flats


def test_tall_matrices_get_larger_updates(one_rank: Ranks) -> None:
    found = one_rank(directions, SHAPES)[0]
    for i, (shape, flat) in enumerate(zip(SHAPES, found, strict=True)):
        wanted = math.sqrt(max(1.0, shape[0] / shape[1])) * quintic(random(*shape, seed=i).double().numpy(), 5)
        assert torch.equal(flat[:3], torch.zeros(3)), "what no matrix covers gets no update"
        torch.testing.assert_close(flat[3:].view(shape).double(), torch.from_numpy(wanted), rtol=0, atol=1e-4)
