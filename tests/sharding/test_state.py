"""`TrainingState` is all that brings a run's tensors together."""

from __future__ import annotations

import torch

from megatron_iberis.model.parameters import Shard
from megatron_iberis.sharding.layout import FlatTensor, Piece
from megatron_iberis.sharding.state import TrainingState
from tests.support.ranks import Ranks, groups_of


def numel(shape: tuple[int, ...]) -> float:
    return float(torch.Size(shape).numel())


def gather_some() -> None:
    """Runs on a rank: full tensors from a part of the layout, and from all of it, in another order."""
    values = {name: torch.arange(6.0).view(2, 3) + 10 * i for i, name in enumerate("abc")}
    shards = {n: Shard("matrix", (2, 3), (2, 3), None, 0, n, torch.nn.Parameter(v)) for n, v in values.items()}
    pieces = {name: (Piece(name, 0, 6, 1),) for name in values}
    layout = [FlatTensor(torch.cat((torch.zeros(1), values[n].flatten())), "matrix", pieces[n]) for n in values]
    state = TrainingState(layout, {}, shards, groups_of(1), replicated=True)
    a, b, c = (flat.tensor for flat in layout)
    for names, tensors in (("b", [b]), ("cab", [c, a, b])):
        exchange = state.exchange(tensors, numel)
        found = exchange.gather(tensors, torch.float32)
        assert {name: tensor.tolist() for name, tensor in found.items()} == {n: values[n].tolist() for n in names}
        assert state.exchange(tensors, numel) is exchange, "made once, as all ranks have to agree on it"


def test_any_of_its_tensors_can_be_brought_together(one_rank: Ranks) -> None:
    one_rank(gather_some)
