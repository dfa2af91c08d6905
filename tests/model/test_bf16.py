"""In bf16 the model is the same model, as far as bf16 goes."""

from __future__ import annotations

import pytest
import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from tests.support.comparison import random_batch, randomise
from tests.support.ranks import Ranks, groups_of

CONFIG = ModelConfig(depth=4, width=64, heads=4, kv_heads=2, vocab_size=257, sequence_length=64)


def deviations(config: ModelConfig, tensor_size: int, sequence_parallel: bool) -> dict[str, float]:
    """Runs on a rank: how far loss, logits (root mean square) and gradients (whole) in bf16 are from fp32."""
    reference = ReferenceIberis(config)
    randomise(reference, seed=0)
    tokens, targets = random_batch(config, seed=0)
    model = build_model(config, groups_of(tensor_size), sequence_parallel)
    fill_parameters(shards(model), reference.state_dict())
    model.to(torch.bfloat16)
    exact, loss = reference(tokens, targets), model(tokens, targets)
    exact.backward()
    loss.backward()
    with torch.no_grad():
        logits, expected = model(tokens), reference(tokens)
    assert logits.dtype == loss.dtype == torch.float32
    wanted = dict(reference.named_parameters())
    error = total = 0.0
    for shard in shards(model):
        want, got = shard.of(wanted[shard.name].grad), shard.parameter.grad
        assert got.dtype == torch.bfloat16
        error += (got.float() - want).square().sum().item()
        total += want.square().sum().item()
    return {
        "loss": abs(loss.item() / exact.item() - 1),
        "logits": ((logits - expected).norm() / expected.norm()).item(),
        "gradients": (error / total) ** 0.5,
    }


@pytest.mark.parametrize("inner_norm", [False, True])
@pytest.mark.parametrize(("tensor_size", "sequence_parallel"), [(1, False), (2, False), (2, True)])
def test_bf16_loss_logits_and_gradients_are_near_fp32(
    one_rank: Ranks, two_ranks: Ranks, tensor_size: int, sequence_parallel: bool, inner_norm: bool
) -> None:
    config = ModelConfig(**{**vars(CONFIG), "inner_norm": inner_norm}).resolved()
    ranks = one_rank if tensor_size == 1 else two_ranks
    for rank in ranks(deviations, config, tensor_size, sequence_parallel):
        assert rank["loss"] <= 0.005
        assert rank["logits"] <= 0.05
        assert rank["gradients"] <= 0.1
