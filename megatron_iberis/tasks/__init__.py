"""Tasks: what a model is trained on in conversations and evaluated with, rows and marking together. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.task import Mark, Row, Task

TASKS: dict[str, Callable[..., Task]] = {}
"""Name -> what opens it: called with `split`, `root` and the task's own settings."""


def open_task(name: str, split: str = "", root: str = "", **settings: Any) -> Task:
    """The task of that name, or the conversations of a .json or .jsonl file.

    split: "" is the usual one: "train" of what is trained on, "test" or "valid" of what is evaluated. root: the
    folder that holds the published files. InputError if there is no such task, split or file, or a row is broken.
    """
    if name not in TASKS:
        raise InputError(f"there is no task {name!r}: choose among {', '.join(sorted(TASKS))}.")
    return TASKS[name](split=split, root=root, **settings)


__all__ = ["TASKS", "Mark", "Row", "Task", "open_task"]
