"""Section [tasks]: the conversations that mid-training and finetuning learn from.

A mixture is a table of tables, one a source, so that a single number of it can be set from the command line:

    [tasks.mixture]
    smoltalk = { rows = 10000 }                           # --tasks.mixture.smoltalk.rows 500
    identity = { task = "me.jsonl", epochs = 2 }
    simple-spelling = { settings = { size = 300 } }       # --tasks.mixture.simple-spelling.settings.size 100
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from megatron_iberis.config.checks import AtLeast, check_bounds, require


@dataclass(frozen=True)
class SourceConfig:
    """A source of a mixture: a task's rows, or a part of them, so many times an epoch."""

    task: str = ""
    """Name of a task, or a .jsonl, .json or .parquet file of conversations; empty: the source's own name."""
    split: str = ""
    """Which of the task's splits; empty: "train" in a mixture, of what is held out a task's "test"."""
    start: Annotated[int, AtLeast(0)] = 0
    """The first row that is taken."""
    rows: Annotated[int, AtLeast(0)] = 0
    """So many rows from there on; 0: all."""
    epochs: Annotated[int, AtLeast(0)] = 1
    """How often each row comes in an epoch of the mixture; 0 leaves the source out."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The task's own settings, such as `size` of those whose rows are made, or `language` of a file."""


@dataclass(frozen=True)
class TasksConfig:
    """The conversations to learn from, and those held out."""

    mixture: dict[str, SourceConfig] = field(default_factory=dict)
    """What to train on: tasks.mixture.NAME.task, split, start, rows, epochs, settings; or "a | b.jsonl" whole."""
    val: dict[str, SourceConfig] = field(default_factory=dict)
    """What is held out for loss and bits per byte, in the same form."""
    root: str = ""
    """Folder in which the tasks' files lie; empty: they are fetched from the Hub by name."""
    loss_on: Literal["assistant", "all"] = "assistant"
    """Which tokens are trained: those that the assistant says, or all."""
    cache: str = ""
    """Folder that keeps the conversations as tokens; empty: megatron_iberis/ in the user's cache folder."""

    def resolved(self) -> TasksConfig:
        """The same with each source's task named, and the home folder in the place of each ~ at a path's start."""
        expand = os.path.expanduser

        def named(mixture: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
            return {name: replace(source, task=expand(source.task or name)) for name, source in mixture.items()}

        return replace(
            self,
            mixture=named(self.mixture),
            val=named(self.val),
            root=expand(self.root),
            cache=expand(self.cache),
        )

    def check(self) -> None:
        """Raises InputError for a number of a source that is out of its bounds, or a mixture of nothing."""
        for setting, mixture in (("mixture", self.mixture), ("val", self.val)):
            for name, source in mixture.items():
                check_bounds(f"tasks.{setting}.{name}", source)
            require(
                not mixture or any(source.epochs for source in mixture.values()),
                f"every source of tasks.{setting} has epochs = 0: give one that is to be trained on 1 or more.",
            )
