"""The model is Saint Iberis exactly: logits, loss and every gradient of the golden cases, at each layout."""

from __future__ import annotations

import pytest
import torch

from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.parallel.groups import ParallelGroups
from tests.golden_cases import CASES, model_config, tensors
from tests.ranks import Ranks


def deviations(case: str, tensor_size: int, sequence_parallel: bool) -> dict[str, float]:
    """Runs on a rank: largest deviation of logits, loss and (relative norm) gradients from the golden case."""
    config, golden = model_config(case), tensors(case, "batch")
    model = build_model(config, ParallelGroups.create(tensor_size), sequence_parallel)
    fill_parameters(shards(model), tensors(case, "weights"))
    targets = golden["targets"]
    with torch.no_grad():
        logits = model(golden["input_ids"])
    loss = model(golden["input_ids"], targets) / (targets >= 0).sum()
    loss.backward()
    gradients = tensors(case, "grads")
    worst = 0.0
    for shard in shards(model):
        want, got = shard.of(gradients[shard.name]), shard.parameter.grad
        assert got is not None
        worst = max(worst, ((got - want).norm() / want.norm()).item())
    return {
        "logits": (logits - golden["logits"]).abs().max().item(),
        "loss": (loss.detach() - golden["loss"]).abs().item(),
        "gradients": worst,
    }


def check(found: list[dict[str, float]]) -> None:
    for rank in found:
        assert rank["logits"] <= 1e-4
        assert rank["loss"] <= 5e-6
        assert rank["gradients"] <= 5e-5


@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_equal_golden(one_rank: Ranks, case: str) -> None:
    check(one_rank(deviations, case, 1, False))


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_tp2_logits_loss_and_gradients_equal_golden(two_ranks: Ranks, case: str, sequence_parallel: bool) -> None:
    check(two_ranks(deviations, case, 2, sequence_parallel))
