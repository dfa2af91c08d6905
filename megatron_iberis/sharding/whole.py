"""The whole model brought together from all ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist

from megatron_iberis.sharding.state import TrainingState


def full_weights(state: TrainingState) -> dict[str, torch.Tensor]:
    """The whole model, fp32 by canonical name, on every rank; called by all ranks together."""
    tensors = [flat.tensor for flat in state.layout]
    exchange = state.exchange(tensors, _numel)
    own = exchange.gather([tensor.detach() for tensor in tensors], torch.float32)
    weights = {}
    for name, owner in exchange.owners.items():
        if owner == exchange.rank:
            tensor = own[name].contiguous()
        else:
            tensor = torch.empty(exchange.shards[name].global_shape, device=exchange.device)
        dist.broadcast(tensor, src=owner)
        weights[name] = tensor
    return weights


def _numel(shape: tuple[int, ...]) -> float:
    return float(torch.Size(shape).numel())
