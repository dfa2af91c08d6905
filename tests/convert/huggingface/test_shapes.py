"""The modelling file computes what the reference and our engine compute, for every shape that the model may have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from megatron_iberis.config import ModelConfig
from megatron_iberis.convert.huggingface.modeling_iberis import IberisConfig, IberisForCausalLM
from megatron_iberis.convert.names import layer_types, sizes_for_hf, sizes_from_hf
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.inference.engine import Engine
from megatron_iberis.inference.sampling import Sampling
from megatron_iberis.inference.state import Memory
from tests.support.decoding import SHAPES, VOCABULARY, random_weights, reference, shape
from tests.support.requests import finish

PROMPTS = [[3], [9, 60, 2, 5, 40, 41, 9, 8, 7], [11, 12]]


def shapes() -> dict[str, ModelConfig]:
    one_tap = ModelConfig(depth=4, width=16, heads=2, mlp_hidden=48, kernel=1, vocab_size=VOCABULARY).resolved()
    return {name: shape(name) for name in SHAPES} | {"one tap": one_tap}


def exported(config: ModelConfig) -> Any:
    sizes = sizes_for_hf(config)
    model = IberisForCausalLM(IberisConfig(**{name: sizes[name] for name in sizes if name != "model_type"}))
    model.load_state_dict(random_weights(config))
    return model.eval()


@pytest.mark.parametrize("name", shapes())
@torch.no_grad()
def test_logits_are_the_references_in_any_pieces(name: str) -> None:
    config = shapes()[name]
    model, whole = exported(config), reference(config, random_weights(config))
    ids = torch.randint(VOCABULARY, (2, 23), generator=torch.Generator().manual_seed(0))
    wanted = whole(ids)
    torch.testing.assert_close(model(input_ids=ids).logits, wanted, rtol=0, atol=1e-4)
    for sizes in ([1] * 23, [1, 2, 3, 4, 13], [22, 1]):
        cache = DynamicCache(config=model.config)
        pieces = [model(input_ids=piece, past_key_values=cache).logits for piece in ids.split(sizes, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", shapes())
def test_greedy_text_is_our_engines(name: str) -> None:
    config = shapes()[name]
    model, decoder = exported(config), Decoder(config, random_weights(config), torch.float32)
    engine = Engine(decoder, memory_bytes=400 * Memory.bytes_per_token(config, decoder.dtype))
    requests = [engine.submit(prompt, Sampling(temperature=0), 10) for prompt in PROMPTS]
    finish(engine)
    length = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=10, do_sample=False)
    assert out[:, length:].tolist() == [[token.id for token in request.answer] for request in requests]


@pytest.mark.parametrize("name", shapes())
def test_sizes_come_back_and_layers_are_of_the_same_kind(name: str) -> None:
    config = shapes()[name]
    assert vars(sizes_from_hf(sizes_for_hf(config), "here")) | {"mlp_ratio": 0} == vars(config) | {"mlp_ratio": 0}
    assert exported(config).config.layer_types == layer_types(config)
    sizes = sizes_for_hf(config)
    del sizes["layer_types"], sizes["model_type"]
    assert IberisConfig(**sizes).layer_types == layer_types(config)
