"""A new model starts as upstream's does, but with its convolutions alive, and the same whatever the layout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.initialization import InitialWeights, build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from tests.support.comparison import random_batch
from tests.support.ranks import Ranks, groups_of

CONFIG = ModelConfig(
    depth=3, width=256, heads=4, kv_heads=1, vocab_size=1025, sequence_length=16, inner_norm=True
).resolved()
SLC2, ATTENTION = "transformer.h.0.", "transformer.h.1."
STANDARD_DEVIATIONS = {  # min(1, sqrt(fan_out / fan_in)) / sqrt(fan_in), and 1 for the embedding
    "transformer.wte.weight": 1.0,
    f"{SLC2}attn.x_proj.weight": 1 / 16,
    f"{SLC2}attn.B_proj.weight": 1 / 16,
    f"{SLC2}attn.alpha_proj.weight": 1 / 128,  # 4 x 256
    f"{SLC2}attn.A_proj.weight": 1 / 32,  # 64 x 256
    f"{SLC2}mlp.c_fc.weight": 1 / 16,
    f"{ATTENTION}attn.c_q.weight": 1 / 16,
    f"{ATTENTION}attn.c_k.weight": 1 / 32,  # 64 x 256
    f"{ATTENTION}attn.c_v.weight": 1 / 32,
}

Part = tuple[int | None, np.ndarray]


def start(tensor_size: int, seed: int) -> dict[str, Part]:
    """Runs on a rank: (dimension along which it is split, this rank's part without padding) of each full tensor."""
    model = build_model(CONFIG, groups_of(tensor_size))
    fill_parameters(shards(model), InitialWeights(shards(model), seed))
    parts = {}
    for shard in shards(model):
        tensor = shard.parameter.detach()
        parts[shard.name] = (shard.dim, tensor.narrow(shard.dim or 0, 0, shard.length).numpy())
    return parts


def gathered(ranks: list[dict[str, Part]]) -> dict[str, np.ndarray]:
    full = {}
    for name, (dim, first) in ranks[0].items():
        full[name] = first if dim is None else np.concatenate([rank[name][1] for rank in ranks], axis=dim)
    return full


@pytest.fixture(scope="module")
def weights(one_rank: Ranks) -> dict[str, np.ndarray]:
    return gathered(one_rank(start, 1, 42))


def test_tp2_starts_from_the_same_tensors_as_tp1(two_ranks: Ranks, weights: dict[str, np.ndarray]) -> None:
    ranks = two_ranks(start, 2, 42)
    for name, tensor in gathered(ranks).items():
        assert np.array_equal(tensor, weights[name]), name
    for name, (dim, tensor) in ranks[0].items():
        assert dim is not None or np.array_equal(tensor, ranks[1][name][1]), f"{name} differs between ranks"


def test_same_seed_same_start_and_another_seed_another(one_rank: Ranks, weights: dict[str, np.ndarray]) -> None:
    again, other = gathered(one_rank(start, 1, 42)), gathered(one_rank(start, 1, 43))
    for name, tensor in weights.items():
        assert np.array_equal(again[name], tensor), name
        assert np.array_equal(other[name], tensor) == (not tensor.any()), name


def test_no_two_tensors_are_alike(weights: dict[str, np.ndarray]) -> None:
    assert not np.array_equal(weights[f"{SLC2}attn.x_proj.weight"], weights[f"{SLC2}attn.B_proj.weight"])
    assert not np.array_equal(weights[f"{SLC2}mlp.c_fc.weight"], weights[f"{ATTENTION}mlp.c_fc.weight"])


def test_head_and_output_projections_start_at_zero(weights: dict[str, np.ndarray]) -> None:
    zero = {name for name, tensor in weights.items() if not tensor.any()}
    assert zero == {name for name in weights if name == "lm_head.weight" or "c_proj" in name}


def test_convolution_starts_uniform_within_one_over_root_k(weights: dict[str, np.ndarray]) -> None:
    taps = weights[f"{SLC2}attn.conv1d.weight"]
    bound = 1 / math.sqrt(CONFIG.kernel)
    assert 0.98 * bound < np.abs(taps).max() <= bound
    assert abs(taps.std() - bound / math.sqrt(3)) < 0.05 * bound  # a uniform distribution's
    assert np.count_nonzero(taps) == taps.size


@pytest.mark.parametrize("name", STANDARD_DEVIATIONS)
def test_matrices_start_normal_with_the_standard_deviation_of_their_shape(
    weights: dict[str, np.ndarray], name: str
) -> None:
    tensor, std = weights[name].astype(np.float64), STANDARD_DEVIATIONS[name]
    assert abs(tensor.std() / std - 1) < 5 / math.sqrt(2 * tensor.size)
    assert abs(tensor.mean() / std) < 5 / math.sqrt(tensor.size)
    assert 0.003 < np.mean(np.abs(tensor) > 2.5 * std) < 0.03  # 0.0124 of a normal distribution


def gradient_norms(steps: int, dead_convolution: bool) -> dict[str, float]:
    """Runs on a rank: norm of each gradient after some steps of gradient descent from the start."""
    model = build_model(CONFIG, groups_of(1))
    fill_parameters(shards(model), InitialWeights(shards(model), seed=42))
    tokens, targets = random_batch(CONFIG, seed=0)
    if dead_convolution:
        with torch.no_grad():
            next(s.parameter for s in shards(model) if s.kind == "convolution").zero_()
    descent = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps + 1):
        descent.step()  # nothing at first: there is no gradient yet
        descent.zero_grad()
        (model(tokens, targets) / (targets >= 0).sum()).backward()
    return {shard.name: shard.parameter.grad.norm().item() for shard in shards(model)}


def test_slc2_learns_from_the_first_steps(one_rank: Ranks) -> None:
    """Head zero: nothing reaches the blocks at first. Then their output projections learn, then all the rest."""
    one_step, two_steps = one_rank(gradient_norms, 1, False)[0], one_rank(gradient_norms, 2, False)[0]
    assert one_step[f"{SLC2}attn.c_proj.weight"] > 0
    assert all(norm > 0 for norm in two_steps.values()), two_steps


def test_zero_taps_would_leave_slc2_dead(one_rank: Ranks) -> None:
    """Why the convolution is initialised: upstream leaves it as memory was, and zeros never come alive."""
    norms = one_rank(gradient_norms, 3, True)[0]
    assert {name for name, norm in norms.items() if norm == 0} == {n for n in norms if n.startswith(f"{SLC2}attn.")}
