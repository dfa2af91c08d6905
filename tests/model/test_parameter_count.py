"""The recipes are the published models to the parameter, and the config counts what the modules hold."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from megatron_iberis.config import ModelConfig, load_recipe
from megatron_iberis.model.initialization import build_model
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from tests.support.ranks import Ranks, groups_of

PUBLISHED = {
    "d12": (376_240_128, [1, 4, 7, 10, 13, 15]),
    "d20": (542_035_200, [1, 4, 7, 10, 13, 16, 19]),
}


def counts(configs: list[ModelConfig], tensor_size: int) -> list[int]:
    """Runs on a rank: parameters of the full models that the real modules are parts of. Nothing is allocated."""
    found = []
    for config in configs:
        with torch.device("meta"):
            model = build_model(config, groups_of(tensor_size))
        found.append(sum(math.prod(shard.global_shape) for shard in shards(model)))
    return found


def small_shapes() -> list[ModelConfig]:
    shapes = itertools.product((1, 2, 5, 6), (1, 2, 3, 4), (1, 4), (2, 4), (False, True), (64, 257))
    return [
        ModelConfig(
            depth=depth,
            width=64,
            heads=4,
            slc_rate=rate,
            kernel=kernel,
            kv_heads=kv_heads,
            inner_norm=norm,
            vocab_size=vocabulary,
            mlp_ratio=5.5 if norm else 4.0,
        ).resolved()
        for depth, rate, kernel, kv_heads, norm, vocabulary in shapes
    ]


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_recipe_is_the_published_model(one_rank: Ranks, recipe: str) -> None:
    config = load_recipe(recipe).model
    parameters, attention_layers = PUBLISHED[recipe]
    assert config.parameter_count() == parameters
    assert config.attention_layers == attention_layers
    assert one_rank(counts, [config], 1) == [[parameters]]


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_recipe_at_tp2_is_the_published_model(two_ranks: Ranks, recipe: str) -> None:
    assert two_ranks(counts, [load_recipe(recipe).model], 2) == [[PUBLISHED[recipe][0]]] * 2


def test_config_counts_what_the_modules_hold(one_rank: Ranks, two_ranks: Ranks) -> None:
    shapes = small_shapes()
    expected = [config.parameter_count() for config in shapes]
    assert one_rank(counts, shapes, 1) == [expected]
    assert two_ranks(counts, shapes, 2) == [expected] * 2


def test_config_counts_what_the_reference_holds() -> None:
    for config in small_shapes():
        with torch.device("meta"):
            model = ReferenceIberis(config)
        assert sum(parameter.numel() for parameter in model.parameters()) == config.parameter_count(), config


def test_d12_without_slc2_is_larger_by_what_attention_costs_more() -> None:
    """One switch makes every layer attention: 4,194,304 parameters a mixer where SLC2 has 3,230,720."""
    hybrid, attention = load_recipe("d12").model, load_recipe("d12", ["--model.slc_rate", "1"]).model
    assert attention.attention_layers == list(range(16))
    assert attention.parameter_count() - hybrid.parameter_count() == 10 * (4_194_304 - 3_230_720)
