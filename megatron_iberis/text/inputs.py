"""Which files a user means: names, folders and globs -> the list of text files, checked before anything is read."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FORMS = (".jsonl", ".parquet", ".txt")
COMPRESSIONS = (".gz", ".zst")  # of .jsonl and .txt; parquet compresses itself
_KNOWN = "use .jsonl or .txt (also with .gz or .zst behind it) or .parquet."


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of documents: `form` is one of FORMS, `compression` one of COMPRESSIONS or "", `size` its bytes."""

    path: Path
    form: str
    compression: str
    size: int


def find_inputs(names: Sequence[str]) -> list[InputFile]:
    """The files that `names` (files, folders searched to the bottom, globs) stand for: each once, folders sorted.

    ValueError naming the first that is missing, empty or of an unknown kind, and what to do.
    """
    files: dict[Path, InputFile] = {}
    for name in names:
        for path in _expand(name):
            form, compression = _form(path)
            size = path.stat().st_size
            if size == 0:
                raise ValueError(f"{path} is empty: remove it from the input or fetch it again.")
            files.setdefault(path.resolve(), InputFile(path, form, compression, size))
    if not files:
        raise ValueError("no input file was given: name files, folders or globs.")
    return list(files.values())


def _expand(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.exists():
        matches = [path]
    elif glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        if not matches:
            raise ValueError(f"no file matches {name}: check the pattern and the folder.")
    else:
        raise ValueError(f"there is no file or folder {name}: check the name.")
    for match in matches:
        if not match.is_dir():
            yield match
            continue
        inside = [p for p in sorted(match.rglob("*")) if p.is_file() and _is_text(p, match)]
        if not inside:
            raise ValueError(f"the folder {match} holds no text files: {_KNOWN}")
        yield from inside


def _is_text(path: Path, folder: Path) -> bool:
    """Whether a file met in `folder` is one of ours; hidden ones are not."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return False
    try:
        _form(path)
    except ValueError:
        return False
    return True


def _form(path: Path) -> tuple[str, str]:
    name = path.name.lower()
    compression = next((c for c in COMPRESSIONS if name.endswith(c)), "")
    form = Path(name.removesuffix(compression)).suffix
    if form not in FORMS or (form == ".parquet" and compression):
        raise ValueError(f"{path} is not of a kind that can be read: {_KNOWN}")
    return form, compression
