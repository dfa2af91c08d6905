"""Iberis beside the plain-PyTorch reference: random weights, and how far the two are apart."""

from __future__ import annotations

import math

import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from tests.support.ranks import groups_of


def randomise(model: ReferenceIberis, seed: int) -> None:
    """Weights under which every part of the model matters, the head and the output projections too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan_in = parameter[0].numel()  # of a convolution: its taps
            std = 1.0 if name == "transformer.wte.weight" else 1 / math.sqrt(fan_in)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def random_batch(config: ModelConfig, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, targets), each int64 [2, T]; a fifth of the targets is ignored, the last token id occurs."""
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randint(config.vocab_size, (2, config.sequence_length + 1), generator=generator)
    stream[0, -2:] = config.vocab_size - 1
    tokens, targets = stream[:, :-1], stream[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < 0.2] = -1
    targets[0, -1] = config.vocab_size - 1
    return tokens, targets


def deviations(config: ModelConfig, tensor_size: int, sequence_parallel: bool, seed: int = 0) -> dict[str, float]:
    """How far Iberis is from the reference, on a rank: logits absolute, mean loss, worst gradient relative."""
    reference = ReferenceIberis(config)
    randomise(reference, seed)
    tokens, targets = random_batch(config, seed)
    model = build_model(config, groups_of(tensor_size), sequence_parallel)
    fill_parameters(shards(model), reference.state_dict())
    counted = (targets >= 0).sum()
    losses = []
    for either in (model, reference):
        loss = either(tokens, targets) / counted
        loss.backward()
        losses.append(loss.item())
    wanted = {name: parameter.grad for name, parameter in reference.named_parameters()}
    with torch.no_grad():
        apart = {"logits": (model(tokens) - reference(tokens)).abs().max().item()}
    apart["loss"] = abs(losses[0] - losses[1])
    floor = 0.01 * max(gradient.norm().item() for gradient in wanted.values())  # some gradients ought to be zero
    for shard in shards(model):
        got, want = shard.parameter.grad, wanted[shard.name]
        assert got is not None, f"{shard.name} has no gradient"
        error = (got - shard.of(want)).norm() / want.norm().clamp(min=floor)
        apart["gradients"] = max(apart.get("gradients", 0.0), error.item())
    return apart
