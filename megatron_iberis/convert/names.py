"""A model's parts in Hugging Face's form and in ours, both ways: the sizes in config.json and the weights' names.

* Weights keep their canonical names (`transformer.h.3.attn.x_proj.weight`), shapes and meaning in an export: the
  modelling file has modules of these names, so there is nothing to translate and nothing to lose.
* Sizes have the names that transformers' own models give them, as far as those have such a thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from megatron_iberis.config import ModelConfig
from megatron_iberis.config.checks import check_bounds
from megatron_iberis.errors import InputError

MODEL_TYPE = "iberis"

# config.json's name -> ModelConfig's, for every size that makes the model.
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "intermediate_size": "mlp_hidden",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_size",
    "max_position_embeddings": "sequence_length",
    "slc_rate": "slc_rate",
    "conv_kernel_size": "kernel",
    "conv_output_norm": "inner_norm",
    "rope_theta": "rope_base",
    "final_logit_softcapping": "softcap",
    "rms_norm_eps": "norm_eps",
}


def layer_types(config: ModelConfig) -> list[str]:
    """transformers' word for what each layer keeps of the tokens before."""
    return ["full_attention" if config.is_attention(layer) else "conv" for layer in range(config.depth)]


def sizes_for_hf(config: ModelConfig) -> dict[str, Any]:
    """The part of config.json that says what the (resolved) model is."""
    sizes = {theirs: getattr(config, ours) for theirs, ours in SIZES.items()}
    return {"model_type": MODEL_TYPE, **sizes, "layer_types": layer_types(config)}


def sizes_from_hf(values: Mapping[str, Any], where: object) -> ModelConfig:
    """The resolved model of a config.json's content. InputError, which names `where`, if it is not one of ours."""
    kind = values.get("model_type")
    if kind != MODEL_TYPE:
        raise InputError(f"{where} is of a model of type {kind!r}: only {MODEL_TYPE!r} is Saint Iberis.")
    types = {field.name: type(field.default) for field in dataclasses.fields(ModelConfig)}
    sizes: dict[str, Any] = {}
    for theirs, ours in SIZES.items():
        if theirs not in values:
            raise InputError(f"{where} does not say {theirs}: take the file that was exported.")
        value = values[theirs]
        value = float(value) if types[ours] is float and type(value) is int else value
        if type(value) is not types[ours]:
            raise InputError(f"{where} gives {theirs} as {value!r}: take the file that was exported.")
        sizes[ours] = value
    config = ModelConfig(**sizes)
    check_bounds("model", config)
    config.check()
    if config.head_size * config.heads != config.width:
        raise InputError(f"{where} has {config.heads} heads of {config.head_size} in a width of {config.width}.")
    if values.get("layer_types", layer_types(config)) != layer_types(config):
        raise InputError(
            f"{where} has layer_types that slc_rate {config.slc_rate} does not give: take the file that was exported."
        )
    return dataclasses.replace(config, mlp_ratio=config.mlp_hidden / config.width)


def check_names(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, where: object) -> None:
    """InputError, which names `where`, unless `shapes` has the weights of this model, and no others.

    shapes: canonical name -> shape.
    """
    wanted = canonical_shapes(config)
    for name, shape in wanted.items():
        if name not in shapes:
            raise InputError(f"{where} lacks the weight {name}: take a whole copy of the model.")
        if tuple(shapes[name]) != shape:
            raise InputError(f"{where} has {name} of shape {list(shapes[name])} where {list(shape)} is meant.")
    others = sorted(shapes.keys() - wanted.keys())
    if others:
        raise InputError(f"{where} has a weight {others[0]}, which Saint Iberis has not: it is another model.")


def canonical_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The canonical name and shape of every weight of the (resolved) model, without padding."""
    import torch  # not before: a config.json alone is looked at without it

    from megatron_iberis.model.reference import ReferenceIberis

    with torch.device("meta"):
        model = ReferenceIberis(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
