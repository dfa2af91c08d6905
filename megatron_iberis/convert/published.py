"""The published recipe at any sizes: what a model is given that comes from elsewhere without one."""

from __future__ import annotations

from dataclasses import replace

from megatron_iberis.config import ModelConfig, Recipe, load_recipe


def published_recipe(model: ModelConfig) -> Recipe:
    """d12's (with the norm inside SLC2) or d20's, for a resolved model of other sizes; it names no data."""
    published = load_recipe("d12" if model.inner_norm else "d20")
    train = replace(published.train, steps=0)  # by the tokens for each parameter
    row = train.device_batch * model.sequence_length
    if train.batch_tokens % row:
        train = replace(train, batch_tokens=row)
    data = replace(published.data, train="", val="", tokenizer="")
    return replace(published, model=model, train=train, data=data).resolved()
