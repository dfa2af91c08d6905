"""Weights of targets, and log likelihoods of single tokens, are the model's at any layout: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.iberis import Iberis
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from tests.support.comparison import random_batch, randomise
from tests.support.ranks import Ranks, groups_of

CONFIG = ModelConfig(
    depth=4, width=32, heads=4, kv_heads=2, mlp_hidden=48, vocab_size=61, sequence_length=16, inner_norm=True
).resolved()
LAYOUTS = [(1, False, 1), (2, False, 1), (2, True, 1), (1, False, 2)]  # tp, sequence parallel, cp
FOUR = [(2, True, 2), (1, False, 4)]


def factors() -> torch.Tensor:
    """A number a token of either sign, fp32 [2, T], a quarter of them 0."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(2, CONFIG.sequence_length, generator=generator)
    return numbers * (torch.rand(numbers.shape, generator=generator) > 0.25)


def likelihoods_of_reference() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Log likelihood of each target [2, T], from the plain model in fp64; gradients of their sum times `factors`."""
    reference = ReferenceIberis(CONFIG)
    randomise(reference, 0)
    reference.double()
    tokens, targets = random_batch(CONFIG, 0)
    logits = reference(tokens).double().transpose(1, 2)
    found = -F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
    (found * factors()).sum().backward()
    return found.detach(), {name: p.grad for name, p in reference.named_parameters()}  # type: ignore[misc]


def model_of(tp: int, sequence_parallel: bool, cp: int) -> Iberis:
    model = build_model(CONFIG, groups_of(tp, cp), sequence_parallel)
    reference = ReferenceIberis(CONFIG)
    randomise(reference, 0)
    fill_parameters(shards(model), reference.state_dict())
    return model


def worst_gradient(model: Iberis, wanted: dict[str, torch.Tensor]) -> float:
    worst, floor = 0.0, 0.01 * max(gradient.norm().item() for gradient in wanted.values())
    for shard in shards(model):
        got, want = shard.parameter.grad, wanted[shard.name]
        assert got is not None
        dist.all_reduce(got, group=model.groups.cp)
        worst = max(worst, ((got - shard.of(want)).norm() / want.norm().clamp(min=floor)).item())
    return worst


def deviations(tp: int, sequence_parallel: bool, cp: int) -> dict[str, float]:
    """Runs on a rank: how far weighted loss and single likelihoods are from the plain model's, with gradients."""
    likelihoods, gradients = likelihoods_of_reference()
    tokens, targets = random_batch(CONFIG, 0)
    model = model_of(tp, sequence_parallel, cp)
    loss = model(tokens, targets, weights=factors())
    loss.backward()
    apart = {"loss": abs(loss.item() + (likelihoods * factors()).sum().item())}
    apart["gradients of the loss"] = worst_gradient(model, {name: -g for name, g in gradients.items()})
    model.zero_grad()
    found = model(tokens, targets, per_token=True)
    assert (found.dtype, found.shape) == (torch.float32, targets.shape)
    assert not found[targets < 0].any()
    (found * factors()).sum().backward()
    apart["likelihoods"] = (found - likelihoods).abs().max().item()
    apart["gradients of the likelihoods"] = worst_gradient(model, gradients)
    return apart


def check(found: list[dict[str, float]]) -> None:
    for apart in found:
        assert apart["loss"] <= 1e-4
        assert apart["likelihoods"] <= 2e-5
        assert apart["gradients of the loss"] <= 5e-5
        assert apart["gradients of the likelihoods"] <= 5e-5


@pytest.mark.parametrize(("tp", "sequence_parallel", "cp"), LAYOUTS)
def test_weighted_loss_and_token_likelihoods_are_those_of_the_plain_model_in_fp64(
    request: pytest.FixtureRequest, tp: int, sequence_parallel: bool, cp: int
) -> None:
    ranks: Ranks = request.getfixturevalue("one_rank" if tp * cp == 1 else "two_ranks")
    check(ranks(deviations, tp, sequence_parallel, cp))


@pytest.mark.parametrize(("tp", "sequence_parallel", "cp"), FOUR)
def test_weighted_loss_and_token_likelihoods_on_four_ranks(
    four_ranks: Ranks, tp: int, sequence_parallel: bool, cp: int
) -> None:
    check(four_ranks(deviations, tp, sequence_parallel, cp))


def loss_and_gradients(tp: int, cp: int, weights: torch.Tensor | None) -> list[Any]:
    """Runs on a rank: with these weights."""
    model = model_of(tp, False, cp)
    tokens, targets = random_batch(CONFIG, 0)
    loss = model(tokens, targets, weights=weights)
    loss.backward()
    return [loss.item(), *(shard.parameter.grad.numpy() for shard in shards(model))]  # type: ignore[union-attr]


@pytest.mark.parametrize(("tp", "cp"), [(1, 1), (2, 1), (1, 2)])
def test_weights_of_one_change_no_bit(request: pytest.FixtureRequest, tp: int, cp: int) -> None:
    ranks: Ranks = request.getfixturevalue("one_rank" if tp * cp == 1 else "two_ranks")
    plain = ranks(loss_and_gradients, tp, cp, None)
    ones = ranks(loss_and_gradients, tp, cp, torch.ones(2, CONFIG.sequence_length))
    for (loss, *gradients), (other_loss, *others) in zip(plain, ones, strict=True):
        assert loss == other_loss
        assert all((a == b).all() for a, b in zip(gradients, others, strict=True))
