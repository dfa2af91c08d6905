"""What resuming takes from a checkpoint beside the weights: optimizer and random state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from megatron_iberis.checkpoint import files, verify
from megatron_iberis.checkpoint.weights import CheckpointWeights, TensorFiles
from megatron_iberis.errors import InputError
from megatron_iberis.parallel.agreement import gather_objects
from megatron_iberis.parallel.node import ranks_on_this_node
from megatron_iberis.sharding.layout import fill_pieces
from megatron_iberis.sharding.state import ADAMW, TrainingState


class Checkpoint(CheckpointWeights):
    """A complete checkpoint folder, to go on training from. Raises InputError when it holds weights only."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if self.weights_only:
            raise InputError(
                f"{folder} holds weights and nothing of a training that could be resumed: start a new run from them, "
                f"with --run.start_from {folder} and another --run.folder."
            )
        if "optimizer_step" not in self.state:
            raise InputError(f"{folder / files.STATE} is damaged: use an older checkpoint.")

    @property
    def optimizer_step(self) -> int:
        """The optimizer's own count of the steps done: skipped ones left out."""
        count: int = self.state["optimizer_step"]
        return count

    def restore_optimizer(self, state: TrainingState) -> None:
        """Fills the optimizer's state of this rank's flat tensors, whatever the layout that saved it was."""
        stored = TensorFiles(sorted(self.folder.glob("optimizer-*.safetensors")))
        for flat in state.layout:
            parts = state.parts_of(flat.kind)
            restored: dict[str, Any] = {}
            for part in parts:
                restored[part] = torch.zeros_like(flat.tensor.detach())
                fill_pieces(restored[part], flat.pieces, state.shards, _Part(stored, part))
            if parts == ADAMW:
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
    listing = [files.candidates(root)]
    dist.broadcast_object_list(listing)
    return verify.newest_whole(root, damage_on_any_rank, listing[0])


def damage_on_any_rank(folder: Path, checksums: verify.Choice = list) -> str | None:
    """`verify.damage` as seen by all ranks, which call this together; those of a node share the reading."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own = verify.damage(folder, lambda names: list(checksums(names))[local :: ranks_on_this_node()])
    return next((problem for problem in gather_objects(own) if problem), None)


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
