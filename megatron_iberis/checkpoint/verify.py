"""Says whether a checkpoint is what was once written: the size and checksum of every file, in manifest.json.

* The checksum is xxh3 (128 bits): 22 GB/s on one core, where zlib's crc32 does 4 and blake2b 1. It is free beside the
  disk, so whoever reads a file may as well check it. It tells of accidents, not of forgery.
* Sizes are always compared; which checksums are, is up to the caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from megatron_iberis.checkpoint import files
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import write_json
from megatron_iberis.storage.hashing import hash_file

Record = dict[str, Any]
Choice = Callable[[list[str]], Iterable[str]]
"""Picks the files to read through out of the names of all."""


def weights(names: list[str]) -> Iterable[str]:
    """For `damage`: what a model that is not trained on reads."""
    return [name for name in names if not name.startswith("optimizer-")]


def none(names: list[str]) -> Iterable[str]:
    """For `damage`: sizes alone are compared."""
    return []


def describe(path: Path) -> Record:
    """A file's entry in the manifest."""
    return {"bytes": path.stat().st_size, "xxh3_128": hash_file(path, xxhash.xxh3_128())}


def write_manifest(folder: Path, records: Mapping[str, Record]) -> None:
    """Writes the manifest of a checkpoint's files, given by their paths in it."""
    write_json(folder / files.MANIFEST, {"files": dict(sorted(records.items()))})


def damage(folder: Path, checksums: Choice = list) -> str | None:
    """What is wrong with a checkpoint, in a sentence that names the file; None when it is whole.

    checksums: which files to read through; by default all.
    """
    try:
        records = json.loads((folder / files.MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, record in records.items():
            size = (folder / name).stat().st_size
            if size != record["bytes"]:
                return f"{folder / name} has {size:,} bytes where {record['bytes']:,} were written"
        for name in checksums(sorted(records)):
            if describe(folder / name) != records[name]:
                return f"{folder / name} does not have the checksum that it was written with"
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except OSError as error:
        return f"{error.filename or folder} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{folder / files.MANIFEST} is cut or overwritten"
    return None


def newest_whole(
    root: Path,
    damage_of: Callable[[Path], str | None],
    listing: tuple[list[Path], list[str]] | None = None,
) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below `root` in which `damage_of` finds nothing wrong, and why newer ones were not taken.

    It is the one that `latest` names or an older one; None when there is no checkpoint at all. listing: what
    `files.candidates` found, where another rank looked. Raises InputError when there are some and none is whole.
    """
    found, problems = listing or files.candidates(root)
    for folder in found:
        problem = damage_of(folder)
        if problem is None:
            return folder, [f"{problem}: {folder.name} is used instead" for problem in problems]
        problems.append(problem)
    if not problems:
        return None, []
    raise InputError(
        f"no checkpoint in {root} can be used: {'; '.join(problems)}. Put back a copy of one and write its name into "
        f"{root / files.LATEST}, or start a new run with another --run.folder."
    )
