"""Small models with random weights of the golden cases' scale, in all shapes that decoding has to be right for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from megatron_iberis.config import ModelConfig
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.model.reference import ReferenceIberis

SHAPES = {
    "English": ModelConfig(depth=6, width=32, heads=4, mlp_hidden=128),
    "Japanese-English": ModelConfig(depth=7, width=32, heads=4, mlp_hidden=176, inner_norm=True),
    "grouped heads, K 2": ModelConfig(depth=4, width=32, heads=4, kv_heads=2, mlp_hidden=64, kernel=2),
    "one kv head, K 4": ModelConfig(depth=5, width=32, heads=2, kv_heads=1, mlp_hidden=64, kernel=4, inner_norm=True),
    "every 2nd": ModelConfig(depth=5, width=16, heads=2, mlp_hidden=48, slc_rate=2),
    "every 5th": ModelConfig(depth=9, width=16, heads=2, mlp_hidden=48, slc_rate=5, inner_norm=True),
    "attention alone": ModelConfig(depth=3, width=16, heads=2, mlp_hidden=48, slc_rate=1),
    "one layer": ModelConfig(depth=1, width=16, heads=2, mlp_hidden=48),
}
VOCABULARY = 64


def shape(name: str, sequence_length: int = 128) -> ModelConfig:
    """One of SHAPES, resolved."""
    given = vars(SHAPES[name]) | {"vocab_size": VOCABULARY, "sequence_length": sequence_length}
    return ModelConfig(**given).resolved()


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """By upstream's names: normal with variance 1 / inputs, embedding 1, head 3, convolution 1 / sqrt(K)."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in ReferenceIberis(config).state_dict().items():
        inputs = parameter[0].numel()
        scale = {"transformer.wte.weight": 1.0, "lm_head.weight": 3 / math.sqrt(inputs)}
        std = scale.get(name, 1 / math.sqrt(inputs))
        weights[name] = torch.randn(parameter.shape, generator=generator) * std
    return weights


def reference(config: ModelConfig, weights: dict[str, torch.Tensor]) -> ReferenceIberis:
    model = ReferenceIberis(config)
    model.load_state_dict(weights)
    return model.eval()


def decoder(name: str, dtype: torch.dtype = torch.float32, sequence_length: int = 128, **settings: str) -> Decoder:
    """With the random weights of the shape."""
    config = shape(name, sequence_length)
    return Decoder(config, random_weights(config), dtype, **settings)


@torch.no_grad()
def likeliest_after(model: ReferenceIberis, prompt: Sequence[int], answer: Sequence[int]) -> list[int]:
    """For each place of the answer, and the one after it, the likeliest token there: all equal if it was greedy."""
    logits = model(torch.tensor([[*prompt, *answer]]))[0]  # [T, V]
    return logits[len(prompt) - 1 :].argmax(-1).tolist()
