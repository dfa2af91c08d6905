"""An export to Hugging Face -> weights of ours, bit for bit.

Also of one that transformers has saved again, after training it further say: then the tokenizer's folder is named.
Nothing of transformers is needed, and no code of the export is run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_iberis.config import ModelConfig, Recipe, load_recipe
from megatron_iberis.convert.names import check_names, sizes_from_hf
from megatron_iberis.convert.published import published_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.run_folder import RECIPE, TOKENIZER
from megatron_iberis.storage.refusals import check_new
from megatron_iberis.tokenizer import Tokenizer
from megatron_iberis.tokenizer.tokenizer import MANIFEST_FILE

if TYPE_CHECKING:
    from megatron_iberis.checkpoint.weights import TensorFiles

CONFIG = "config.json"
STEP = "training_steps"
"""In config.json: the steps that the model was trained for."""
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class ExportedModel:
    """An export, of which the small files are read and found to be one of ours."""

    folder: Path
    config: ModelConfig
    step: int
    """Trained for so many; 0 where it is not told."""

    @property
    def tokenizer(self) -> Path:
        """The folder of our own tokenizer, from which the export's was made."""
        return self.folder / TOKENIZER

    @property
    def recipe(self) -> Recipe:
        """What the model was trained by, or the published recipe where the export does not tell."""
        if (self.folder / RECIPE).is_file():
            told = load_recipe(self.folder / RECIPE)
            if replace(told.model, mlp_ratio=self.config.mlp_ratio) == self.config:
                return told
        return published_recipe(self.config)

    def weights(self) -> TensorFiles:
        """Full tensors by canonical name, in the type that the export has; read when they are asked for.

        Raises InputError when a file is missing or damaged, or the weights are not those of the model.
        """
        from megatron_iberis.checkpoint.weights import TensorFiles

        opened = TensorFiles(self._files())
        check_names(opened.shapes(), self.config, self.folder)
        return opened

    def _files(self) -> list[Path]:
        index = self.folder / _INDEX
        if not index.is_file():
            return [_there(self.folder / _WHOLE)]
        try:
            names = sorted(set(_json(index)["weight_map"].values()))
            if any(Path(name).name != name for name in names):
                raise ValueError
        except (KeyError, TypeError, AttributeError, ValueError):
            raise InputError(f"{index} is damaged: copy the export again.") from None
        return [_there(self.folder / name) for name in names]


def is_export(folder: Path) -> bool:
    """Whether a folder looks like a model of transformers, ours or another's."""
    return (folder / CONFIG).is_file()


def read_export(folder: str | Path) -> ExportedModel:
    """The export in a folder. Raises InputError when there is none, or it is of another architecture."""
    folder = Path(folder)
    if not is_export(folder):
        raise InputError(f"{folder} is no export to Hugging Face (there is no {CONFIG}): name the folder of one.")
    values = _json(folder / CONFIG)
    if not isinstance(values, dict):
        raise InputError(f"{folder / CONFIG} is damaged: copy the export again.")
    step = values.get(STEP, 0)
    return ExportedModel(folder, sizes_from_hf(values, folder / CONFIG), step if type(step) is int else 0)


def convert_from_hf(folder: str | Path, output: str | Path, tokenizer: str | Path | None = None) -> ExportedModel:
    """Writes a folder of weights (checkpoint/weights_only.py) of an export, and returns what was read.

    tokenizer: the folder of ours, where the export has none. Raises InputError when the export is not whole, or not
    of Saint Iberis, and when the output is there already or cannot be written.
    """
    from megatron_iberis.checkpoint.weights_only import save_weights

    check_new(output)
    model = read_export(folder)
    own = Path(tokenizer) if tokenizer else model.tokenizer
    if not tokenizer and not (own / MANIFEST_FILE).is_file():
        raise InputError(f"{model.folder} holds no tokenizer of ours: name its folder (--tokenizer PATH).")
    found = Tokenizer.load(own)
    if found.vocab_size > model.config.vocab_size:
        raise InputError(
            f"the tokenizer in {own} has {found.vocab_size:,} ids and the model in {model.folder} "
            f"{model.config.vocab_size:,}: name the one that it was trained with (--tokenizer PATH)."
        )
    save_weights(output, model.recipe, found, model.weights(), model.step, "an export to Hugging Face")
    return model


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: copy the export again.") from None


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is missing: copy the export again.")
    return path
