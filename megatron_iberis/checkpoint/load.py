"""Reads a checkpoint: full tensors by canonical name, read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from megatron_iberis.checkpoint.save import FORMAT, STATES
from megatron_iberis.model.parameters import Shard
from megatron_iberis.sharding.layout import FlatTensor, fill_pieces


class TensorFiles(Mapping[str, torch.Tensor]):
    """The tensors of several safetensors files as one mapping; nothing is read before it is asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self._files: dict[str, Any] = {}
        for path in paths:
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{path} is damaged ({error}): use an older checkpoint.") from None
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

    Raises ValueError when the folder is no checkpoint or of a newer format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            raise ValueError(f"{folder} is not a checkpoint: give a step-... folder below checkpoints/.") from None
        if state["format"] != FORMAT:
            raise ValueError(
                f"{folder} has checkpoint format {state['format']}, this version reads {FORMAT}: "
                "update megatron_iberis."
            )
        self.step: int = state["step"]
        self.optimizer_step: int = state["optimizer_step"]
        self.weights = TensorFiles(sorted(folder.glob("model-*.safetensors")))

    def restore_optimizer(
        self,
        layout: list[FlatTensor],
        state: MutableMapping[torch.Tensor, dict[str, Any]],
        shards: Mapping[str, Shard],
    ) -> None:
        """Fills the optimizer's state of this rank's flat tensors, whatever the layout that saved it was."""
        stored = TensorFiles(sorted(self.folder.glob("optimizer-*.safetensors")))
        for flat in layout:
            parts = STATES["matrix" if flat.kind == "matrix" else "other"]
            restored: dict[str, Any] = {}
            for part in parts:
                restored[part] = torch.zeros_like(flat.tensor.detach())
                fill_pieces(restored[part], flat.pieces, shards, _Part(stored, part))
            if flat.kind != "matrix":
                restored["step"] = torch.tensor(float(self.optimizer_step), device=flat.tensor.device)
            state[flat.tensor] = restored

    def restore_random_state(self) -> None:
        """Sets torch's random state to rank 0's when it saved."""
        state = load_file(self.folder / "rng.safetensors")
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


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
