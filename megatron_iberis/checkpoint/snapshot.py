"""Copies a run's state out of the training loop: the full tensors that this rank owns, in CPU memory of their own.

What a checkpoint holds is decided here: fp32 master weights by canonical name; NAME.momentum for Muon's matrices,
NAME.mean and NAME.square for the rest; the random state of rank 0's torch; the optimizer's own count of steps. No
tensor is cut: a reader needs no layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from megatron_iberis.model.parameters import Shard
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.sharding.exchange import Exchange
from megatron_iberis.sharding.layout import FlatTensor

STATES = {"matrix": ("momentum",), "other": ("mean", "square")}


@dataclass(frozen=True)
class Snapshot:
    """The state after `step` steps. Shares no memory with the run, which goes on meanwhile."""

    step: int
    optimizer_step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    random_state: dict[str, torch.Tensor]


class Camera:
    """Takes snapshots of one run. Made and called by all ranks together.

    layout, state: the optimizer's flat tensors, and its state by tensor. replicated: no ZeRO.
    """

    def __init__(
        self,
        layout: list[FlatTensor],
        state: Mapping[torch.Tensor, dict[str, Any]],
        shards: dict[str, Shard],
        groups: ParallelGroups,
        replicated: bool,
    ) -> None:
        self.state = state
        self.flats = {
            "matrix": [flat for flat in layout if flat.kind == "matrix"],
            "other": [flat for flat in layout if flat.kind != "matrix"],
        }
        self.exchanges = {
            kind: Exchange([flat.pieces for flat in flats], shards, groups, replicated, _numel)
            for kind, flats in self.flats.items()
            if flats
        }

    def take(self, step: int) -> Snapshot:
        """The state as it is now, after `step` steps."""
        weights: dict[str, torch.Tensor] = {}
        optimizer: dict[str, torch.Tensor] = {}
        for kind, exchange in self.exchanges.items():
            flats = [flat.tensor.detach() for flat in self.flats[kind]]
            weights.update(_on_cpu(exchange.gather(flats, torch.float32)))
            for part in STATES[kind]:
                states = [self._state_of(flat, part) for flat in flats]
                found = _on_cpu(exchange.gather(states, torch.float32))
                optimizer.update({f"{name}.{part}": tensor for name, tensor in found.items()})
        counts = [int(s["step"].item()) for s in self.state.values() if "step" in s]
        return Snapshot(step, counts[0] if counts else 0, weights, optimizer, _random_state())

    def _state_of(self, flat: torch.Tensor, part: str) -> torch.Tensor:
        for tensor, state in self.state.items():
            if tensor.data_ptr() == flat.data_ptr() and part in state:
                found: torch.Tensor = state[part]
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
