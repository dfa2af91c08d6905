"""What `flat_layout` says about DeepSpeed's flat tensors: everything is somewhere, once, and does lie there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.ranks import Ranks
from tests.support.small_engines import Layout, engine, own_micro_batches, recipe, start_weights


def survey(layout: Layout, dtype: str) -> dict[str, Any]:
    """Runs on a rank: after a step, where the elements of each shard are; checked against the model's weights."""
    from deepspeed import zero

    running = engine(recipe(layout, dtype), start_weights())
    tokens = torch.arange(8 * 16).view(8, 16) % 61
    running.step(0, own_micro_batches(running, tokens, tokens.roll(-1, 1)))
    with zero.GatheredParameters([s.parameter for s in running.state.shards.values()], enabled=layout.stage == 3):
        model = {name: shard.parameter.detach().clone() for name, shard in running.state.shards.items()}
    seen = {name: torch.zeros(tensor.numel(), dtype=torch.int64) for name, tensor in model.items()}
    for flat in running.state.layout:
        assert flat.tensor.dtype == torch.float32
        covered = torch.zeros(flat.tensor.numel(), dtype=torch.int64)
        for piece in flat.pieces:
            assert running.state.shards[piece.name].kind == flat.kind
            place = slice(piece.flat_start, piece.flat_start + piece.length)
            part = slice(piece.start, piece.start + piece.length)
            covered[place] += 1
            seen[piece.name][part] += 1
            lies_there = flat.tensor.detach().view(-1)[place].to(model[piece.name].dtype)
            assert torch.equal(lies_there, model[piece.name].view(-1)[part]), piece
        assert covered.max() <= 1
    running.deepspeed.destroy()
    return {"seen": seen, "shape": {name: tuple(tensor.shape) for name, tensor in model.items()}}


LAYOUTS = [
    *(Layout(stage=stage, rows=4) for stage in (0, 1, 2, 3)),
    Layout(stage=3, rows=4, sub_groups=True),
    *(Layout(stage=stage, tp=2) for stage in (0, 1, 2, 3)),
]


CASES = [(layout, dtype) for layout in LAYOUTS for dtype in ("fp32", "bf16") if layout.stage or dtype == "fp32"]


@pytest.mark.parametrize(("layout", "dtype"), CASES, ids=str)
def test_every_element_lies_in_one_place_and_is_there(two_ranks: Ranks, layout: Layout, dtype: str) -> None:
    found = two_ranks(survey, layout, dtype)
    for name, shape in found[0]["shape"].items():
        counts = [rank["seen"][name] for rank in found]
        if layout.tp == 1 and layout.stage > 0:
            counts = [counts[0] + counts[1]]  # the data-parallel ranks share one copy
        for count in counts:
            assert torch.equal(count, torch.ones(torch.Size(shape).numel(), dtype=torch.int64)), name
