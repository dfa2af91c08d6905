"""Copies a run's state out of the training loop: the full tensors that this rank owns, in CPU memory of their own.

What a checkpoint holds is decided here: fp32 master weights by canonical name; NAME.momentum of what Muon trains,
NAME.mean and NAME.square of what AdamW trains; the random state of rank 0's torch; the optimizer's own count of
steps. No tensor is cut: a reader needs no layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from megatron_iberis.sharding.state import ADAMW, MUON, TrainingState


@dataclass(frozen=True)
class Snapshot:
    """The state after `step` steps. Shares no memory with the run, which goes on meanwhile."""

    step: int
    optimizer_step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    random_state: dict[str, torch.Tensor]


def take_snapshot(state: TrainingState, step: int) -> Snapshot:
    """The state as it is now, after `step` steps. Called by all ranks together."""
    weights: dict[str, torch.Tensor] = {}
    optimizer: dict[str, torch.Tensor] = {}
    for parts in (MUON, ADAMW):
        tensors = [flat.tensor for flat in state.layout if state.parts_of(flat.kind) == parts]
        if not tensors:
            continue
        exchange = state.exchange(tensors, _numel)
        flats = [tensor.detach() for tensor in tensors]
        weights.update(_on_cpu(exchange.gather(flats, torch.float32)))
        for part in parts:
            found = _on_cpu(exchange.gather([_state_of(state, flat, part) for flat in flats], torch.float32))
            optimizer.update({f"{name}.{part}": tensor for name, tensor in found.items()})
    counts = [int(s["step"].item()) for s in state.optimizer.values() if "step" in s]
    return Snapshot(step, counts[0] if counts else 0, weights, optimizer, _random_state())


def _state_of(state: TrainingState, flat: torch.Tensor, part: str) -> torch.Tensor:
    for tensor, parts in state.optimizer.items():
        if tensor.data_ptr() == flat.data_ptr() and part in parts:
            found: torch.Tensor = parts[part]
            return found
    return torch.zeros_like(flat)  # before the first step


def _numel(shape: tuple[int, ...]) -> float:
    return float(torch.Size(shape).numel())


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # `gather` hands out tensors that it has made, never the run's own
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state
