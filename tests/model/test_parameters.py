"""A parameter knows from birth which part of which full tensor it is: names, shapes, borders and marks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.initialization import build_model
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from tests.support.ranks import Ranks, groups_of

CONFIG = ModelConfig(
    depth=3, width=32, heads=4, kv_heads=2, mlp_hidden=48, vocab_size=61, sequence_length=16
).resolved()
ROWS = {"c_q", "c_k", "c_v", "x_proj", "alpha_proj", "B_proj", "conv1d", "c_fc", "wte", "lm_head"}
COLUMNS = {"c_proj"}


def split_dimension(name: str, shared_kv: bool) -> int | None:
    layer = name.split(".")[-2]
    if layer in ROWS and not (shared_kv and layer in ("c_k", "c_v")):
        return 0
    return 1 if layer in COLUMNS else None


def survey(kv_heads: int, tp: int) -> dict[str, dict[str, Any]]:
    """Runs on a rank: what its parameters say of themselves."""
    model = build_model(replace(CONFIG, kv_heads=kv_heads), groups_of(tp))
    return {
        s.name: {
            "global": s.global_shape,
            "local": tuple(s.parameter.shape),
            "dim": s.dim,
            "offset": s.global_offset,
            "length": s.length,
            "kind": s.kind,
            "marked": s.parameter.tensor_model_parallel,
            "said": s.parameter.partition.local_shape,
        }
        for s in shards(model)
    }


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("tp", [1, 2])
def test_every_parameter_says_how_it_is_split(one_rank: Ranks, two_ranks: Ranks, tp: int, kv_heads: int) -> None:
    reference = ReferenceIberis(replace(CONFIG, kv_heads=kv_heads)).state_dict()
    found = (one_rank if tp == 1 else two_ranks)(survey, kv_heads, tp)
    for rank, parameters in enumerate(found):
        assert parameters.keys() == reference.keys()
        for name, said in parameters.items():
            shape, dim = list(reference[name].shape), split_dimension(name, shared_kv=bool(kv_heads % tp))
            assert said["global"] == tuple(shape), name
            assert (said["dim"], said["marked"]) == (dim, dim is not None), name
            assert said["local"] == said["said"], name
            if dim is not None:
                shape[dim] = -(-shape[dim] // tp)
                assert said["offset"] == rank * shape[dim], name
                assert said["length"] == min(shape[dim], reference[name].shape[dim] - said["offset"]), name
            assert said["local"] == tuple(shape), name
        kinds = {"wte": "embedding", "lm_head": "unembedding", "conv1d": "convolution"}
        assert all(said["kind"] == kinds.get(name.split(".")[-2], "matrix") for name, said in parameters.items())


def whole_and_parts(tp: int) -> list[tuple[str, int | None, torch.Tensor, torch.Tensor]]:
    """Runs on a rank: of each tensor, filled with numbers: name, split dimension, this rank's part, the whole."""
    model, found = build_model(CONFIG, groups_of(tp)), []
    for shard in shards(model):
        full = torch.arange(1.0, 1 + torch.Size(shard.global_shape).numel()).view(shard.global_shape)
        part = shard.of(full)
        own = part if shard.dim is None else part.narrow(shard.dim, 0, shard.length)
        assert part.sum() == own.sum(), "padding is zeros"
        found.append((shard.name, shard.dim, own, full))
    return found


def test_the_ranks_parts_make_up_the_full_tensors(two_ranks: Ranks) -> None:
    for parts in zip(*two_ranks(whole_and_parts, 2), strict=True):
        _, dim, own, full = parts[0]
        together = own if dim is None else torch.cat([part[2] for part in parts], dim)
        assert torch.equal(together, full)


def test_weights_of_another_shape_are_named(one_rank: Ranks) -> None:
    with pytest.raises(AssertionError, match=r"ValueError: lm_head.weight has shape \(2, 2\); this model needs"):
        one_rank(fill_with_another_shape)


def fill_with_another_shape() -> None:
    """Runs on a rank."""
    head = next(s for s in shards(build_model(CONFIG, groups_of(1))) if s.kind == "unembedding")
    head.of(torch.zeros(2, 2))
