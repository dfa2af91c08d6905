"""Saves a run: every rank writes the full tensors that it owns, weights and optimizer state, to one file each.

* `model-RANK.safetensors`: fp32 master weights by canonical name. `optimizer-RANK.safetensors`: NAME.momentum for
  Muon's matrices, NAME.mean and NAME.square for the rest. No tensor is cut: a reader needs no layout.
* `state.json`: steps done, and the optimizer's own count of them. The position in the data is the step.
* `rng.safetensors`: the random state of rank 0's torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from megatron_iberis.checkpoint import files
from megatron_iberis.config import Recipe, save_recipe
from megatron_iberis.model.parameters import Shard
from megatron_iberis.parallel.groups import ParallelGroups, everyone_agrees
from megatron_iberis.sharding.exchange import Exchange
from megatron_iberis.sharding.layout import FlatTensor

FORMAT = 1
STATES = {"matrix": ("momentum",), "other": ("mean", "square")}


class CheckpointWriter:
    """Writes the checkpoints of one run. Made and called by all ranks together.

    layout, state: the optimizer's flat tensors, and its state by tensor. replicated: no ZeRO.
    """

    def __init__(
        self,
        root: Path,
        recipe: Recipe,
        tokenizer: Path | None,
        layout: list[FlatTensor],
        state: Mapping[torch.Tensor, dict[str, Any]],
        shards: dict[str, Shard],
        groups: ParallelGroups,
        replicated: bool,
    ) -> None:
        self.root, self.recipe, self.tokenizer, self.state = root, recipe, tokenizer, state
        self.flats = {
            "matrix": [flat for flat in layout if flat.kind == "matrix"],
            "other": [flat for flat in layout if flat.kind != "matrix"],
        }
        self.exchanges = {
            kind: Exchange([flat.pieces for flat in flats], shards, groups, replicated, _numel)
            for kind, flats in self.flats.items()
            if flats
        }

    def save(self, step: int) -> Path:
        """Saves the run after `step` steps; returns the checkpoint's folder.

        Raises ValueError on all ranks, leaving the older checkpoints as they were, when any rank can't write.
        """
        lead = dist.get_rank() == 0
        partial = self.root / f"{files.name_of(step)}.partial"
        problem = _guarded(lambda: files.begin(self.root, step), self.root) if lead else None
        self._agree(problem, partial)
        weights, optimizer = self._gather()
        problem = _guarded(lambda: self._write(partial, step, weights, optimizer, lead), self.root)
        self._agree(problem, partial)
        problem = _guarded(lambda: files.commit(partial), self.root) if lead else None
        self._agree(problem, partial)
        return partial.with_suffix("")

    def _gather(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        weights: dict[str, torch.Tensor] = {}
        optimizer: dict[str, torch.Tensor] = {}
        for kind, exchange in self.exchanges.items():
            flats = [flat.tensor.detach() for flat in self.flats[kind]]
            weights.update(_on_cpu(exchange.gather(flats, torch.float32)))
            for part in STATES[kind]:
                states = [self._state_of(flat, part) for flat in flats]
                found = _on_cpu(exchange.gather(states, torch.float32))
                optimizer.update({f"{name}.{part}": tensor for name, tensor in found.items()})
        return weights, optimizer

    def _state_of(self, flat: torch.Tensor, part: str) -> torch.Tensor:
        for tensor, state in self.state.items():
            if tensor.data_ptr() == flat.data_ptr() and part in state:
                found: torch.Tensor = state[part]
                return found
        return torch.zeros_like(flat)  # before the first step

    def _write(
        self,
        partial: Path,
        step: int,
        weights: dict[str, torch.Tensor],
        optimizer: dict[str, torch.Tensor],
        lead: bool,
    ) -> None:
        rank = f"{dist.get_rank():05d}"
        save_file(weights, partial / f"model-{rank}.safetensors")
        save_file(optimizer, partial / f"optimizer-{rank}.safetensors")
        if not lead:
            return
        save_file(_random_state(), partial / "rng.safetensors")
        save_recipe(self.recipe, partial / "recipe.toml")
        if self.tokenizer is not None:
            shutil.copytree(self.tokenizer, partial / "tokenizer")
        counts = [int(s["step"].item()) for s in self.state.values() if "step" in s]
        state = {"format": FORMAT, "step": step, "optimizer_step": counts[0] if counts else 0}
        (partial / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def _agree(self, problem: str | None, partial: Path) -> None:
        """Raises on all ranks when one of them had a problem, and takes back what was written."""
        try:
            everyone_agrees(problem)
        except ValueError:
            if dist.get_rank() == 0:
                files.abandon(partial)
            raise


def _guarded(action: Any, root: Path) -> str | None:
    try:
        action()
    except Exception as error:  # whatever it is, the other ranks wait for this one's word
        return files.explain(error, root)
    return None


def _numel(shape: tuple[int, ...]) -> float:
    return float(torch.Size(shape).numel())


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state
