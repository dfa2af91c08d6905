"""Tasks: what a model is trained on in conversations and evaluated with, rows and marking together. No torch here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.tasks import code, conversations, japanese, knowledge, mathematics, reasoning, spelling
from megatron_iberis.tasks.task import Mark, Row, Task

TASKS: dict[str, Callable[..., Task]] = {
    **knowledge.TASKS,
    **mathematics.TASKS,
    **code.TASKS,
    **spelling.TASKS,
    **conversations.TASKS,
    **japanese.TASKS,
    **reasoning.TASKS,
}
"""Name -> what opens it: called with `split`, `root` and the task's own settings."""
FILES = (".json", ".jsonl", ".parquet")
"""How the name of a file of conversations ends."""


def open_task(name: str, split: str = "", root: str = "", **settings: Any) -> Task:
    """The task of that name, or the conversations of a .json, .jsonl or .parquet file.

    split: "" is the usual one: "train" of conversations, the one to be evaluated on of all others. root: the folder
    that holds the published files, each set's in a folder of its own; without one they are fetched. Names are taken
    with any case, hyphens or none. InputError if there is no such task, split, setting or file.
    """
    if name.endswith(FILES):
        path = Path(name) if Path(name).exists() or not root else Path(root) / name
        return _called(conversations.open_file, name, path=str(path), split=split, **settings)
    known = {_plain(task): task for task in TASKS}
    if _plain(name) not in known:
        raise InputError(
            f"there is no task {name!r}: choose among {', '.join(sorted(TASKS))}, or name a file of conversations "
            f"({', '.join(FILES)})."
        )
    task = known[_plain(name)]
    return _called(TASKS[task], task, split=split, root=root, **settings)


def _called(opened: Callable[..., Task], name: str, **arguments: Any) -> Task:
    known = inspect.signature(opened).parameters
    for setting in arguments:
        if setting not in known:
            own = ", ".join(key for key in known if key not in ("split", "root", "path")) or "none"
            raise InputError(f"{name} has no setting {setting!r}: it has {own}.")
    return opened(**arguments)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


__all__ = ["FILES", "TASKS", "Mark", "Row", "Task", "open_task"]
