"""The folder of a run's checkpoints: writing one so that it is either complete or not there, finding the latest.

    checkpoints/latest                  the name of the newest complete checkpoint
    checkpoints/step-00000500/          state.json, recipe.toml, tokenizer/, *.safetensors
    checkpoints/step-00000500.partial/  one that was not finished; of no use, removed by the next save

A checkpoint is written under its .partial name, synced to the disk, and renamed when all of it is there.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

LATEST = "latest"


def name_of(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint below `root`; None when there is none. ValueError when it is named but gone."""
    try:
        name = (root / LATEST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    folder = root / name
    if not (folder / "state.json").is_file():
        others = sorted(p.name for p in root.glob("step-*") if (p / "state.json").is_file())
        hint = f"write one of {', '.join(others)} into it" if others else "start without --run.resume"
        raise ValueError(f"{root / LATEST} names {name}, which is not a complete checkpoint: {hint}.")
    return folder


def begin(root: Path, step: int) -> Path:
    """An empty folder to write the checkpoint into; unfinished ones of before are removed."""
    root.mkdir(parents=True, exist_ok=True)
    for leftover in root.glob("*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = root / f"{name_of(step)}.partial"
    partial.mkdir()
    return partial


def commit(partial: Path) -> Path:
    """Makes a fully written .partial folder the newest checkpoint; returns its final path."""
    for path in sorted(partial.rglob("*")):
        sync(path)
    sync(partial)
    final = partial.with_suffix("")
    if final.exists():  # saved before, then resumed from an older one
        shutil.rmtree(final)
    partial.rename(final)
    sync(final.parent)
    pointer = final.parent / f"{LATEST}.partial"
    pointer.write_text(final.name + "\n", encoding="utf-8")
    sync(pointer)
    pointer.rename(final.parent / LATEST)
    sync(final.parent)
    return final


def abandon(partial: Path) -> None:
    """Removes what an unsuccessful save left."""
    shutil.rmtree(partial, ignore_errors=True)


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
        free = shutil.disk_usage(root).free / 2**30
        return f"the disk of {root} is full ({free:.1f} GiB free): make room, or set --run.folder to another disk."
    return f"a checkpoint could not be written to {root}: {error}."
