"""The folder of a run's checkpoints: each is either complete or not there; which is the newest; which are kept.

    checkpoints/latest                  the name of the newest complete checkpoint
    checkpoints/step-00000500/          manifest.json, state.json, recipe.toml, tokenizer/, *.safetensors
    checkpoints/step-00000500.partial/  one that was not finished or is being removed; the next save clears it away

A checkpoint is written under its .partial name, synced to the disk, and renamed when all of it is there. One that is
removed is renamed first. So whatever bears a final name is whole, whenever the process may be killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from megatron_iberis.errors import InputError

LATEST = "latest"
MANIFEST = "manifest.json"
PREFIX = "step-"
PARTIAL = ".partial"


def name_of(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"{PREFIX}{step:08d}"


def step_of(folder: Path) -> int:
    """The steps after which a checkpoint of this name was written."""
    return int(folder.name.removeprefix(PREFIX))


def steps_in(root: Path) -> list[int]:
    """The steps after which there is a checkpoint below `root`, oldest first."""
    names = (path.name.removeprefix(PREFIX) for path in root.glob(f"{PREFIX}*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal())


def candidates(root: Path) -> tuple[list[Path], list[str]]:
    """The checkpoints to resume from, the one that `latest` names first, then the older ones; and what is odd.

    Without a readable `latest` it is all of them: the run was killed just before it was written.
    """
    steps = steps_in(root)
    problems = []
    try:
        name = (root / LATEST).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        name = ""
    number = name.removeprefix(PREFIX)
    if number.isdecimal():
        if int(number) not in steps:
            problems.append(f"{root / name} is missing")
        steps = [step for step in steps if step <= int(number)]
    elif name:
        problems.append(f"{root / LATEST} names no checkpoint")
    return [root / name_of(step) for step in reversed(steps)], problems


def begin(root: Path, step: int) -> Path:
    """An empty folder to write the checkpoint into; unfinished ones of before are removed."""
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.glob(f"{PREFIX}*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = root / f"{name_of(step)}{PARTIAL}"
    partial.mkdir()
    return partial


def commit(partial: Path) -> Path:
    """Makes a fully written and synced .partial folder the newest checkpoint; returns its final path."""
    for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
        sync(folder)
    final = partial.with_suffix("")
    pointer = final.parent / f"{LATEST}{PARTIAL}"  # first of all: the disk may be full
    pointer.write_text(final.name + "\n", encoding="utf-8")
    sync(pointer)
    replaced = final.with_name(f"{final.name}.replaced{PARTIAL}")
    if final.exists():  # saved before, then resumed from an older one
        final.rename(replaced)
    partial.rename(final)
    sync(final.parent)
    pointer.rename(final.parent / LATEST)
    sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def abandon(partial: Path) -> None:
    """Removes what an unsuccessful save left."""
    shutil.rmtree(partial, ignore_errors=True)


def remove_old(root: Path, step: int, keep_last: int, keep_every: int) -> None:
    """Removes checkpoints before `step`, the newest, but for the last ones and those after multiples of keep_every.

    keep_last counts the newest too; 0 keeps all. One that is being read stays until a later call; so does one that
    can't be removed. Those after `step`, of a run that was taken back to an older checkpoint, are left alone.
    """
    if keep_last == 0:
        return
    for old in [done for done in steps_in(root) if done <= step][:-keep_last]:
        if keep_every == 0 or old % keep_every:
            with suppress(OSError):
                _remove(root / name_of(old))


def _remove(folder: Path) -> None:
    with (folder / MANIFEST).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError while someone holds it
        doomed = folder.with_name(f"{folder.name}.removed{PARTIAL}")
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def hold(folder: Path) -> IO[bytes]:
    """Keeps a run from removing `folder` until the returned file is closed."""
    file = (folder / MANIFEST).open("rb")
    with suppress(OSError):  # a file system without locks: as good as before there were any
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


def claim(root: Path) -> int:
    """Makes this process the only one that writes to `root`, until the returned descriptor is closed.

    Raises InputError when another one does: two runs in one folder would clear away each other's checkpoints.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"another run is writing to {root}: end its processes first, or give another --run.folder."
        ) from None
    except OSError:
        pass  # a file system without locks
    return descriptor


def sync(path: Path) -> None:
    """Has the file or folder on the disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain(error: BaseException, root: Path) -> str:
    """One sentence for a user about why a checkpoint could not be written."""
    # safetensors wraps the system's error in its own and leaves only the text
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "os error 28" in str(error)
    if full or "No space left" in str(error):
        there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free / 2**30
        return f"the disk of {root} is full ({free:.1f} GiB free): make room, or set --run.folder to another disk."
    return f"a checkpoint could not be written to {root}: {error}."
