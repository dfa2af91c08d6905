"""The model is Saint Iberis exactly: logits, loss and every gradient of the golden cases, at each layout."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from tests.support.golden_cases import CASES, model_config, tensors
from tests.support.ranks import Ranks, groups_of


def deviations(
    case: str, tensor_size: int, sequence_parallel: bool, context_size: int = 1, recompute: bool = False
) -> dict[str, float]:
    """Runs on a rank: largest deviation of logits, loss and (relative norm) gradients from the golden case."""
    config, golden = model_config(case), tensors(case, "batch")
    groups = groups_of(tensor_size, context_size)
    model = build_model(config, groups, sequence_parallel, recompute)
    fill_parameters(shards(model), tensors(case, "weights"))
    targets = golden["targets"]
    with torch.no_grad():
        logits = model(golden["input_ids"])
    loss = model(golden["input_ids"], targets) / (targets >= 0).sum()
    loss.backward()
    total = loss.detach()
    gradients = tensors(case, "grads")
    worst = 0.0
    for shard in shards(model):
        want, got = shard.of(gradients[shard.name]), shard.parameter.grad
        assert got is not None
        dist.all_reduce(got, group=groups.cp)
        worst = max(worst, ((got - want).norm() / want.norm()).item())
    return {
        "logits": (logits - golden["logits"]).abs().max().item(),
        "loss": (total - golden["loss"]).abs().item(),
        "gradients": worst,
    }


def check(found: list[dict[str, float]]) -> None:
    for rank in found:
        assert rank["logits"] <= 1e-4
        assert rank["loss"] <= 5e-6
        assert rank["gradients"] <= 5e-5


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_gradients_equal_golden(one_rank: Ranks, case: str, recompute: bool) -> None:
    check(one_rank(deviations, case, 1, False, 1, recompute))


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_tp2_logits_loss_and_gradients_equal_golden(two_ranks: Ranks, case: str, sequence_parallel: bool) -> None:
    check(two_ranks(deviations, case, 2, sequence_parallel))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_cp2_logits_loss_and_gradients_equal_golden(two_ranks: Ranks, case: str, recompute: bool) -> None:
    """jp_gqa has one key-value head: keys and values are gathered; the others go all-to-all over heads."""
    check(two_ranks(deviations, case, 1, False, 2, recompute))


FOUR = [
    (2, False, 2, False),
    (2, True, 2, True),
    (1, False, 4, False),  # en_gqa has two key-value heads: they cannot go all-to-all here
    (4, True, 1, False),
]


@pytest.mark.parametrize(("tensor", "sequence", "context", "recompute"), FOUR)
@pytest.mark.parametrize("case", CASES)
def test_four_ranks_logits_loss_and_gradients_equal_golden(
    four_ranks: Ranks, case: str, tensor: int, sequence: bool, context: int, recompute: bool
) -> None:
    check(four_ranks(deviations, case, tensor, sequence, context, recompute))
