"""The folder of a run's checkpoints: each is either complete or not there; which is the newest; which are kept.

    checkpoints/latest                  the name of the newest complete checkpoint
    checkpoints/step-00000500/          manifest.json, state.json, recipe.toml, tokenizer/, *.safetensors
    checkpoints/step-00000500.partial/  one that was not finished or is being removed; the next save clears it away

A checkpoint is written under its .partial name, synced to the disk, and renamed when all of it is there. One that is
removed is renamed first. So whatever bears a final name is whole, whenever the process may be killed.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import atomic_file, replace_folder, sync_stream
from megatron_iberis.storage.locks import Lock, claim, lock
from megatron_iberis.storage.refusals import explain

FORMAT = 1
LATEST = "latest"
MANIFEST = "manifest.json"
STATE = "state.json"
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
    for leftover in root.glob(f"{LATEST}.*"):
        leftover.unlink(missing_ok=True)
    partial = root / f"{name_of(step)}{PARTIAL}"
    partial.mkdir()
    return partial


def commit(partial: Path) -> Path:
    """Makes a fully written and synced .partial folder the newest checkpoint; returns its final path."""
    final = partial.with_suffix("")
    with atomic_file(final.parent / LATEST) as pointer:  # written first of all: the disk may be full
        pointer.write(f"{final.name}\n".encode())
        sync_stream(pointer)
        replace_folder(partial, final)  # there may be an old one: saved, then resumed from a checkpoint before it
    return final


def abandon(partial: Path) -> None:
    """Removes what an unsuccessful save left."""
    shutil.rmtree(partial, ignore_errors=True)


def remove_old(root: Path, step: int, keep_last: int, keep_every: int) -> list[str]:
    """Removes checkpoints before `step`, the newest, but for the last ones and those after multiples of keep_every.

    keep_last counts the newest too; 0 keeps all. One that is being read stays until a later call; so does one that
    can't be removed: a sentence each says why. On a file system without locks nobody knows who reads, so one goes
    all the same. Those after `step`, of a run that was taken back to an older checkpoint, are left alone.
    """
    if keep_last == 0:
        return []
    problems = []
    for old in [done for done in steps_in(root) if done <= step][:-keep_last]:
        if keep_every == 0 or old % keep_every:
            folder = root / name_of(old)
            try:
                _remove(folder)
            except BlockingIOError:
                problems.append(f"{folder} is not removed yet: it is being read")
            except OSError as error:
                problems.append(f"{folder} cannot be removed ({error.strerror}): remove it by hand")
    return problems


def _remove(folder: Path) -> None:
    with closing(lock(folder / MANIFEST)):  # BlockingIOError while someone reads it
        doomed = folder.with_name(f"{folder.name}.removed{PARTIAL}")
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def hold(folder: Path) -> Lock:
    """Keeps a run from removing `folder` until the result is closed, where the file system has locks."""
    return lock(folder / MANIFEST, shared=True, wait=True)


def claim_folder(root: Path) -> Lock:
    """Makes this process the only one that writes to `root`, until the result is closed.

    Raises InputError when another one does: two runs in one folder would clear away each other's checkpoints.
    """
    root.mkdir(parents=True, exist_ok=True)
    try:
        return claim(root)
    except BlockingIOError:
        raise InputError(
            f"another run is writing to {root}: end its processes first, or give another --run.folder."
        ) from None


def explain_save(error: BaseException, root: Path) -> str:
    """One sentence for a user about why a checkpoint could not be written."""
    return explain(error, root, "make room, or set --run.folder to another disk")
