"""What a checkpoint holds of a model: weights, recipe and tokenizer, for those who do not go on training it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from megatron_iberis.checkpoint import files, verify
from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.run_folder import RECIPE, TOKENIZER, RunFolder


class TensorFiles(Mapping[str, torch.Tensor]):
    """The tensors of several safetensors files as one mapping; nothing is read before it is asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self._files: dict[str, Any] = {}
        for path in paths:
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is damaged ({error}): copy it again, or use an older checkpoint.") from None
            self._files.update(dict.fromkeys(opened.keys(), opened))

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[name].get_tensor(name)
        return tensor

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor; none is read."""
        return {name: tuple(file.get_slice(name).get_shape()) for name, file in self._files.items()}


class CheckpointWeights:
    """The model in a complete checkpoint folder. `step`: steps done. `weights`: fp32, by canonical name.

    A run does not remove the folder before it is closed. Raises InputError when it is no checkpoint or of a newer
    format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._held = files.hold(folder)
            self.state: dict[str, Any] = json.loads((folder / files.STATE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            raise InputError(f"{folder} is not a checkpoint: give a step-... folder below checkpoints/.") from None
        if self.state.get("format", files.FORMAT) != files.FORMAT:
            raise InputError(
                f"{folder} has checkpoint format {self.state['format']}, this version reads {files.FORMAT}: "
                "update megatron_iberis."
            )
        if not {"format", "step"} <= self.state.keys():
            raise InputError(f"{folder / files.STATE} is damaged: use an older checkpoint.")
        self.step: int = self.state["step"]
        self.weights = TensorFiles(sorted(folder.glob("model-*.safetensors")))

    @property
    def weights_only(self) -> bool:
        """Nothing of training is in it (weights_only.py): a run may start from it and cannot be resumed."""
        return self.state.get("weights_only") is True

    @property
    def recipe(self) -> Recipe:
        """The recipe that the model was trained by."""
        return load_recipe(self.folder / RECIPE)

    @property
    def tokenizer(self) -> Path:
        """The folder of its tokenizer."""
        return self.folder / TOKENIZER

    def close(self) -> None:
        """Lets go of the folder; nothing can be read any more that was not read before."""
        self.weights = TensorFiles([])
        self._held.close()


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file that may be read by whom any new file may: the library's own is its owner's alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata)
    path.chmod(mode)


def whole_checkpoint(path: Path) -> Path:
    """`path` if it is a checkpoint whose weights are as they were written, else the newest such one of the run there.

    A damaged newer one is named on standard error. Raises InputError when there is none.
    """
    if (path / files.MANIFEST).is_file() or path.name.startswith(files.PREFIX):
        problem = verify.damage(path, verify.weights)
        if problem:
            raise InputError(f"{problem}: give another checkpoint, or the run's folder for the newest whole one.")
        return path
    found, passed_over = verify.newest_whole(
        RunFolder(path).checkpoints, lambda each: verify.damage(each, verify.weights)
    )
    if found is None:
        raise InputError(f"{path} holds no checkpoint: give a run folder, or a step-... folder in checkpoints/.")
    for problem in passed_over:
        print(f"note: {problem}", file=sys.stderr)
    return found
