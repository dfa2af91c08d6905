"""Which inputs a user means: names, folders, globs and "-" -> the list of text files, checked before any is read."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TABLES = (".parquet", ".arrow")  # rows and columns; they compress themselves
FORMS = (".jsonl", ".txt", *TABLES)
COMPRESSIONS = (".gz", ".zst", ".xz")  # of .jsonl and .txt
STDIN = "-"
_KNOWN = "use .jsonl or .txt (also with .gz, .zst or .xz behind it), .parquet or .arrow."


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of documents: `form` is one of FORMS, `compression` one of COMPRESSIONS or "", `size` its bytes.

    Standard input is the path "-", plain JSON lines of size 0.
    """

    path: Path
    form: str
    compression: str
    size: int

    @property
    def is_stdin(self) -> bool:
        return str(self.path) == STDIN


def find_inputs(names: Sequence[str]) -> list[InputFile]:
    """The files that `names` (files, folders searched to the bottom, globs, "-") stand for: each once, in order.

    A folder of `datasets` (save_to_disk) is read like any folder, but for the files that are not its data.
    ValueError naming the first that is missing, empty or of an unknown kind, and what to do.
    """
    files: dict[Path, InputFile] = {}
    for name in names:
        for path in _expand(name):
            if name == STDIN:
                files.setdefault(path, InputFile(path, ".jsonl", "", 0))
                continue
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
    if name == STDIN or path.exists():
        matches = [path]
    elif glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        if not matches:
            raise ValueError(f"no file matches {name}: check the pattern and the folder.")
    else:
        raise ValueError(f"there is no file or folder {name}: check the name.")
    for match in matches:
        if name == STDIN or not match.is_dir():
            yield match
            continue
        inside = [p for p in sorted(match.rglob("*")) if p.is_file() and _is_text(p, match)]
        if not inside:
            raise ValueError(f"the folder {match} holds no text files: {_KNOWN}")
        yield from inside


def _is_text(path: Path, folder: Path) -> bool:
    """Whether a file met in `folder` is one of ours; hidden ones and the caches of `datasets` are not."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts):
        return False
    try:
        form, _ = _form(path)
    except ValueError:
        return False
    return form != ".arrow" or _is_data(path)


def _is_data(path: Path) -> bool:
    """Whether an .arrow file holds the rows of its folder: state.json says so where save_to_disk has made it."""
    try:
        state = json.loads((path.parent / "state.json").read_bytes())
        return path.name in [data["filename"] for data in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return not path.name.startswith("cache-")


def _form(path: Path) -> tuple[str, str]:
    name = path.name.lower()
    compression = next((c for c in COMPRESSIONS if name.endswith(c)), "")
    form = Path(name.removesuffix(compression)).suffix
    if form not in FORMS or (form in TABLES and compression):
        raise ValueError(f"{path} is not of a kind that can be read: {_KNOWN}")
    return form, compression
