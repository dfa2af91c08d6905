"""The model that is being trained, as one that answers: made between two steps, from the weights as they are.

The full weights are brought together from all ranks as a checkpoint's are, and every rank has a model of its own
beside what it trains: fp32 weights of it for a moment, then in the dtype that it answers with.
"""

from __future__ import annotations

import torch

from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.sharding.whole import full_weights
from megatron_iberis.training.engine import Engine


def live_decoder(engine: Engine) -> Decoder:
    """What the engine trains, as a decoder on its device; called by all ranks together.

    bf16 on a GPU where that is trained in, else fp32.
    """
    recipe, device = engine.recipe, engine.device
    half = recipe.train.dtype == "bf16" and device.type == "cuda"
    weights = full_weights(engine.state)
    return Decoder(recipe.model, weights, torch.bfloat16 if half else torch.float32, device)
