"""Folders and patterns -> the files in them. What cannot be looked into is named, never left out."""

from __future__ import annotations

import glob
import itertools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from megatron_iberis.errors import InputError

# What preprocess.py writes: lists, token files, and folders for work that is not done yet.
_LIST = re.compile(r"(.+)\.(rejects|duplicates)\.jsonl$")
_TOKENS = re.compile(r"(.+_text_document)\.(bin|idx|json)$")
_SHARD = re.compile(r".+\.\d+-of-\d+((_val)?_text_document\.(bin|idx|json)|\.(documents|shard\.json))$")
_WORK = ".partial"
_WORK_FILES = ("plan.json", "journal.json")


def files_in(folder: Path, visited: set[tuple[int, int]] | None = None) -> Iterator[Path]:
    """Everything in `folder` that is no folder, to the bottom and sorted, without hidden names and folders of work.

    Links are followed, a folder that several of them lead to (or itself) is looked into once. InputError for a folder
    that may not be read and a link that leads nowhere.
    """
    visited = set() if visited is None else visited
    status = folder.stat()
    place = status.st_dev, status.st_ino
    if place in visited:
        return
    visited.add(place)
    check_readable(folder)
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if name.startswith("."):
            continue
        if not stat.S_ISDIR(status_of(path).st_mode):
            yield path
        elif not _is_work(path):
            yield from files_in(path, visited)


def matches(pattern: str) -> list[Path]:
    """What a glob stands for, sorted, without folders of work. InputError where it can't be known."""
    for parent in itertools.islice(Path(pattern).parents, len(Path(pattern).parts) - 1):
        for folder in glob.iglob(str(parent), recursive=True):
            if os.path.isdir(folder):
                check_readable(Path(folder))
    found = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    return [path for path in found if not any(_is_work(part) for part in (path, *path.parents))]


def is_list(path: Path) -> bool:
    """Whether this is a list of what preprocess.py has left out: no text, though .jsonl."""
    return _LIST.match(path.name) is not None


def is_output(path: Path) -> bool:
    """Whether preprocess.py has written this file: of a shard, a token file, or a list that belongs to one."""
    if _SHARD.match(path.name):  # beside which other shards may still be at work
        return True
    if found := _TOKENS.match(path.name):
        return path.with_name(found[1] + ".idx").exists()
    if found := _LIST.match(path.name):
        return any(path.with_name(found[1] + end).exists() for end in ("_text_document.idx", ".shard.json", _WORK))
    return False


def status_of(path: Path) -> os.stat_result:
    """InputError if nothing is there, or nothing that may be looked at."""
    try:
        return path.stat()
    except OSError as error:
        if not path.is_symlink():
            raise InputError(f"{path} cannot be read ({error.strerror}): mend that, or leave it out.") from None
        target = os.readlink(path)
        raise InputError(
            f"{path} is a link to {target}, which cannot be reached ({error.strerror}): mend or remove the link."
        ) from None


def check_readable(path: Path) -> None:
    """InputError if this user may not read the file, or look into the folder."""
    needed = os.R_OK | os.X_OK if path.is_dir() else os.R_OK
    if not os.access(path, needed):
        raise InputError(f"{path} may not be read by this user: change its rights, or leave it out.")


def _is_work(folder: Path) -> bool:
    return folder.name.endswith(_WORK) and any((folder / name).exists() for name in _WORK_FILES)
