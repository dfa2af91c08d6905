"""Sections [run] and [checkpoint]: where the run lives, and what it leaves there."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from megatron_iberis.config.checks import AtLeast, require


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and what to keep."""

    every: Annotated[int, AtLeast(0)] = 1000
    """Steps between checkpoints; 0: only at the end."""
    keep_last: Annotated[int, AtLeast(0)] = 0
    """The newest checkpoints, so many, are kept and older ones removed; 0: all are kept."""
    keep_every: Annotated[int, AtLeast(0)] = 0
    """Checkpoints after multiples of so many steps are kept whatever their age; 0: none."""

    def check(self) -> None:
        """Raises InputError when keep_every says nothing."""
        require(
            not self.keep_every or self.keep_last > 0,
            f"checkpoint.keep_every is {self.keep_every} and checkpoint.keep_last is 0, by which all are kept: set "
            "checkpoint.keep_last, for example to 2.",
        )
        require(
            not self.keep_every or (self.every > 0 and self.keep_every % self.every == 0),
            f"checkpoint.keep_every is {self.keep_every} and checkpoints are made every {self.every} steps: make "
            "checkpoint.keep_every a multiple of checkpoint.every.",
        )


@dataclass(frozen=True)
class RunConfig:
    """Where the run lives."""

    folder: str = "runs/iberis"
    """Folder of recipe, checkpoints, TensorBoard curves and log."""
    resume: bool = False
    """Go on from the folder's latest checkpoint; without one, start at the beginning."""
    start_from: str = ""
    """Begin with the weights in this folder (a run, a checkpoint, what `iberis convert` made); empty: a new model."""
    stage: Literal["base", "chat"] = "base"
    """What the run makes: a "base" model continues a text, a "chat" model has learned conversations as
    tokenizer/chat.py renders them. Whoever opens a checkpoint finds it in its recipe."""
    template: str = ""
    """Which template it has learned conversations in, by its hash; the stages of chat models set it themselves."""

    def resolved(self) -> RunConfig:
        """The same with the home folder in the place of a ~ at the start of a path."""
        expand = os.path.expanduser
        return replace(self, folder=expand(self.folder), start_from=expand(self.start_from))

    def check(self) -> None:
        """Raises InputError when there is no folder."""
        require(self.folder.strip() != "", "run.folder is empty: name the run's folder, for example runs/first.")
