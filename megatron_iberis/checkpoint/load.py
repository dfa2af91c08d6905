"""Reads a checkpoint: full tensors by canonical name, read when they are asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from megatron_iberis.checkpoint import files, verify
from megatron_iberis.checkpoint.save import FORMAT
from megatron_iberis.checkpoint.snapshot import STATES
from megatron_iberis.errors import InputError
from megatron_iberis.parallel.node import ranks_on_this_node
from megatron_iberis.sharding.layout import fill_pieces
from megatron_iberis.sharding.state import TrainingState


class TensorFiles(Mapping[str, torch.Tensor]):
    """The tensors of several safetensors files as one mapping; nothing is read before it is asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self._files: dict[str, Any] = {}
        for path in paths:
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is damaged ({error}): use an older checkpoint.") from None
            self._files.update(dict.fromkeys(opened.keys(), opened))

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor


class Checkpoint:
    """A complete checkpoint folder. `step`: steps done. `weights`: fp32, by canonical name.

    A run does not remove it before it is closed. Raises InputError when the folder is no checkpoint or of a newer
    format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._held = files.hold(folder)
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            raise InputError(f"{folder} is not a checkpoint: give a step-... folder below checkpoints/.") from None
        if state.get("format", FORMAT) != FORMAT:
            raise InputError(
                f"{folder} has checkpoint format {state['format']}, this version reads {FORMAT}: "
                "update megatron_iberis."
            )
        if not {"format", "step", "optimizer_step"} <= state.keys():
            raise InputError(f"{folder / 'state.json'} is damaged: use an older checkpoint.")
        self.step: int = state["step"]
        self.optimizer_step: int = state["optimizer_step"]
        self.weights = TensorFiles(sorted(folder.glob("model-*.safetensors")))

    def close(self) -> None:
        """Lets go of the folder; nothing can be read any more that was not read before."""
        self.weights = TensorFiles([])
        self._held.close()

    def restore_optimizer(self, state: TrainingState) -> None:
        """Fills the optimizer's state of this rank's flat tensors, whatever the layout that saved it was."""
        stored = TensorFiles(sorted(self.folder.glob("optimizer-*.safetensors")))
        for flat in state.layout:
            parts = STATES["matrix" if flat.kind == "matrix" else "other"]
            restored: dict[str, Any] = {}
            for part in parts:
                restored[part] = torch.zeros_like(flat.tensor.detach())
                fill_pieces(restored[part], flat.pieces, state.shards, _Part(stored, part))
            if flat.kind != "matrix":
                restored["step"] = torch.tensor(float(self.optimizer_step), device=flat.tensor.device)
            state.optimizer[flat.tensor] = restored

    def restore_random_state(self) -> None:
        """Sets torch's random state to rank 0's when it saved."""
        state = load_file(self.folder / "rng.safetensors")
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


def newest_to_resume(root: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `root` whose every file is as it was written; None when there is none.

    Called by all ranks together. Rank 0 says which checkpoints there are, and the ranks of a node share the reading,
    so that one which is not whole on every node's disk is damaged for all. The second result says why newer ones
    were passed over. Raises InputError when none is whole.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))

    def damage_on_any_rank(folder: Path) -> str | None:
        own = verify.damage(folder, lambda names: names[local :: ranks_on_this_node()])
        found: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(found, own)
        return next((problem for problem in found if problem), None)

    listing = [files.candidates(root)]
    dist.broadcast_object_list(listing)
    return verify.newest_whole(root, damage_on_any_rank, listing[0])


class _Part(Mapping[str, torch.Tensor]):
    """One part of the optimizer state (`mean`, say) by canonical name."""

    def __init__(self, stored: TensorFiles, part: str) -> None:
        self._stored, self._part = stored, part

    def __iter__(self) -> Iterator[str]:
        return (name.removesuffix(f".{self._part}") for name in self._stored if name.endswith(f".{self._part}"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._stored[f"{name}.{self._part}"]
