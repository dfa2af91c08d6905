"""`run.start_from`: the weights that a new run begins with, of a run, a checkpoint, or a model that was converted.

* Found, and held against the recipe, before torch is imported: architecture and tokenizer must be the same, the
  length of a row may be another.
* Opened by all ranks together: rank 0 says which checkpoint of a run it is, and the ranks of a node share the
  comparing of checksums. Each reads its own parts, whatever the layout.
* Schedule and place in the data are a new run's, and so is the optimizer's state unless `optimizer.start` is "warm".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_iberis.checkpoint import files, verify
from megatron_iberis.config import ModelConfig, Recipe, load_recipe
from megatron_iberis.convert.exported import is_export, read_export
from megatron_iberis.errors import InputError
from megatron_iberis.run_folder import RECIPE, TOKENIZER, RunFolder
from megatron_iberis.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from megatron_iberis.sharding.state import TrainingState

_FREE = {"sequence_length", "mlp_ratio", "head_size"}
"""A row may have another length; the last two are told by mlp_hidden and heads."""


@dataclass(frozen=True)
class Start:
    """Weights that fit the recipe. `folder`: the checkpoint or export that holds them.

    warm: the optimizer's state is to be its, too.
    """

    folder: Path
    notes: tuple[str, ...] = ()
    warm: bool = False


@dataclass(frozen=True)
class StartWeights:
    """Weights opened on this rank: full tensors by canonical name. notes: what to say of them."""

    folder: Path
    weights: Mapping[str, torch.Tensor]
    notes: list[str]
    close: Callable[[], None]
    """Nothing is read any more: whoever removes old checkpoints may remove this one."""
    restore_optimizer: Callable[[TrainingState], None] = lambda state: None
    """Gives the optimizer the checkpoint's state, where that is wanted."""


def find_start(recipe: Recipe, tokenizer: Tokenizer) -> Start | None:
    """The weights to begin with; None where a new model's are meant, or a run is resumed, which has its own.

    Raises InputError when there are none in the folder, or they are of another architecture or tokenizer.
    """
    run = recipe.run
    if not run.start_from or (run.resume and files.candidates(RunFolder(run.folder).checkpoints)[0]):
        return None
    folder, notes = Path(run.start_from), list[str]()
    if is_export(folder):
        export = read_export(folder)
        model, own = export.config, export.tokenizer
    else:
        folder, notes = _checkpoint_in(folder)
        theirs = load_recipe(folder / RECIPE)
        model, own = theirs.model, folder / TOKENIZER
        notes += _other_template(theirs.run.template, run.template)
    _check_model(model, recipe.model, folder)
    if Tokenizer.load(own).fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"the model in {folder} has another tokenizer than {recipe.data.tokenizer}: train on token files made "
            f"with its own (--data.tokenizer {own}), or give another --run.start_from."
        )
    warm = recipe.optimizer.start == "warm"
    if warm and (is_export(folder) or _holds_weights_only(folder)):
        raise InputError(
            f'{folder} holds weights and no state of an optimizer: set optimizer.start to "fresh", or start from a '
            "checkpoint of a run."
        )
    return Start(folder, tuple(notes), warm)


def tokenizer_of(path: Path) -> Path:
    """The folder of the tokenizer of what `run.start_from` may name. InputError when there is no model."""
    return read_export(path).tokenizer if is_export(path) else _checkpoint_in(path)[0] / TOKENIZER


def _other_template(theirs: str, ours: str) -> list[str]:
    if not theirs or not ours or theirs == ours:
        return []
    return [
        f"the model has learned conversations in another template ({theirs}) than this version's ({ours}): it has to "
        "learn the form anew"
    ]


def _holds_weights_only(folder: Path) -> bool:
    return json.loads((folder / files.STATE).read_text(encoding="utf-8")).get("weights_only") is True


def _checkpoint_in(path: Path) -> tuple[Path, list[str]]:
    """The checkpoint that a path means, all of its files there, and why newer ones of a run were passed over."""

    def damage(folder: Path) -> str | None:
        return verify.damage(folder, verify.none)

    if (path / files.MANIFEST).is_file() and (path / files.STATE).is_file():
        if problem := damage(path):
            raise InputError(f"{problem}: give another --run.start_from.")
        return path, []
    found, notes = verify.newest_whole(RunFolder(path).checkpoints, damage)
    if found is None:
        raise InputError(
            f"there is no model in run.start_from = {path}: give a run's folder, one of its checkpoints, an export "
            "to Hugging Face, or what iberis convert made."
        )
    return found, notes


def _check_model(theirs: ModelConfig, ours: ModelConfig, folder: Path) -> None:
    """InputError that names every setting by which the weights would not fit."""
    names = [f.name for f in fields(ModelConfig) if f.name not in _FREE]
    other = [name for name in names if getattr(theirs, name) != getattr(ours, name)]
    if other:
        differ = ", ".join(f"model.{name} = {getattr(theirs, name)}, not {getattr(ours, name)}" for name in other)
        settings = " ".join(f"--model.{name} {_written(getattr(theirs, name))}" for name in other)
        raise InputError(f"the model in {folder} has {differ}: give {settings}, or another --run.start_from.")


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def open_start(start: Start) -> StartWeights:
    """The weights, on every rank. Called by all ranks together: InputError on all when one cannot read them."""
    import torch.distributed as dist

    from megatron_iberis.checkpoint.load import damage_on_any_rank
    from megatron_iberis.parallel.agreement import raise_on_any_rank

    choice = [start.folder]
    dist.broadcast_object_list(choice)
    folder = choice[0]
    opened, problem = None, None
    try:
        opened = _open(folder, start)
    except InputError as error:
        problem = str(error)
    raise_on_any_rank(problem)
    assert opened is not None
    if not is_export(folder) and (problem := damage_on_any_rank(folder, list if start.warm else verify.weights)):
        raise InputError(f"{problem}: give another --run.start_from.")
    return opened


def _open(folder: Path, start: Start) -> StartWeights:
    from megatron_iberis.checkpoint.load import Checkpoint
    from megatron_iberis.checkpoint.weights import CheckpointWeights

    if is_export(folder):
        export = read_export(folder)
        return StartWeights(folder, export.weights(), [*start.notes, _told(folder, export.step)], lambda: None)
    checkpoint = Checkpoint(folder) if start.warm else CheckpointWeights(folder)  # from now on nobody removes it
    opened = StartWeights(
        folder, checkpoint.weights, [*start.notes, _told(folder, checkpoint.step)], checkpoint.close
    )
    if isinstance(checkpoint, Checkpoint):
        opened.notes[-1] += ", and the state of its optimizer"
        return replace(opened, restore_optimizer=checkpoint.restore_optimizer)
    return opened


def _told(folder: Path, step: int | None) -> str:
    return f"weights from {folder}, step {step}"
