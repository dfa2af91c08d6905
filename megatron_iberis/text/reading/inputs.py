"""Which inputs a user means: names, folders, globs and "-" -> the list of text files, checked before any is read."""

from __future__ import annotations

import glob
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_iberis.errors import InputError
from megatron_iberis.hub import SOURCE_FILE
from megatron_iberis.text.reading.decompression import decompressed
from megatron_iberis.text.reading.folders import check_readable, files_in, is_list, is_output, matches, status_of
from megatron_iberis.text.reading.unreadable import UnreadableFileError

TABLES = (".parquet", ".arrow")  # rows and columns; they compress themselves
FORMS = {
    ".jsonl": ".jsonl",
    ".ndjson": ".jsonl",
    ".json": ".jsonl",
    ".txt": ".txt",
    **{form: form for form in TABLES},
    ".feather": ".arrow",
}
COMPRESSIONS = (".gz", ".zst", ".xz")  # of all but tables
STDIN = "-"
_KNOWN = "use .jsonl (.ndjson, .json) or .txt (also with .gz, .zst or .xz behind it), .parquet or .arrow (.feather)."
_DATASETS = ("state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", SOURCE_FILE)
"""Files of `datasets`, and of data_tools/download.py, that are no data."""
_NAMED = 5  # files of a notice


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of documents: `form` is a value of FORMS, `compression` one of COMPRESSIONS or "", `size` its bytes.

    Standard input is the path "-", plain JSON lines of size 0.
    """

    path: Path
    form: str
    compression: str
    size: int

    @property
    def is_stdin(self) -> bool:
        return str(self.path) == STDIN


def find_inputs(names: Sequence[str], notices: list[str] | None = None) -> list[InputFile]:
    """The files that `names` (files, folders searched to the bottom, globs, "-") stand for: each once, in order.

    A folder of `datasets` (save_to_disk) is read like any folder, but for the files that are not its data. `notices`
    gets a sentence for whatever a user may take for read that is not. A file of 0 bytes is one without documents.
    InputError naming the first that is missing, of an unknown kind or may not be read, and what to do; or if all have
    0 bytes.
    """
    files: dict[Path, InputFile] = {}
    notices = [] if notices is None else notices
    for name in names:
        for path in _expand(name, notices):
            if name == STDIN:
                files.setdefault(path, InputFile(path, ".jsonl", "", 0))
            else:
                files.setdefault(path.resolve(), _checked(path))
    if not files:
        raise InputError("no input file was given: name files, folders or globs.")
    if not any(file.size or file.is_stdin for file in files.values()):
        raise InputError(f"nothing is in {_some([file.path for file in files.values()])}: fetch the texts again.")
    return list(files.values())


def describe_empty(paths: list[Path]) -> list[str]:
    """The notice on files that hold nothing, if there are any."""
    return [f"nothing is in {_some(paths)}."] if paths else []


def is_path(name: str) -> bool:
    """Whether this is a file, a folder, or a glob that matches one."""
    return os.path.lexists(name) or (
        glob.has_magic(name) and next(glob.iglob(name, recursive=True), None) is not None
    )


def _checked(path: Path) -> InputFile:
    form, compression = _form(path)
    status = status_of(path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is no regular file: to read from a pipe, lead it into --input -.")
    check_readable(path)
    if fault := _not_lines(path, compression):
        raise InputError(f"{path} is {fault}, not JSON lines: write each record on a line of its own, as .jsonl.")
    return InputFile(path, form, compression, status.st_size)


def _expand(name: str, notices: list[str]) -> Iterator[Path]:
    if not name:
        raise InputError('an input is empty (""): name a file, a folder or a glob, or . for the current folder.')
    if not os.path.lexists(name):
        name = os.path.expanduser(name)  # shells leave the ~ of ja=~/texts as it is
    path = Path(name)
    if name == STDIN or os.path.lexists(path):
        found = [path]
    elif glob.has_magic(name):
        matching = matches(name)
        found = [match for match in matching if not (is_list(match) or is_output(match))]
        if not found:
            raise InputError(f"no file of text matches {name}: check the pattern and the folder.")
        if lists := [match for match in matching if is_list(match) and not is_output(match)]:
            notices.append(f"taken for lists of what was left out, and not read: {_some(lists)}.")
    else:
        raise InputError(f"there is no file or folder {name}: check the name.")
    for match in found:
        if name == STDIN or not stat.S_ISDIR(status_of(match).st_mode):
            yield match
        else:
            yield from _texts_in(match, notices)


def _texts_in(folder: Path, notices: list[str]) -> Iterator[Path]:
    """The text files in `folder`; `notices` says which others it holds."""
    others: list[Path] = []
    count = 0
    for path in files_in(folder):
        if _is_text(path):
            count += 1
            yield path
        elif not (is_output(path) or path.name in _DATASETS or _is_cache(path)):
            others.append(path)
    if not count:
        raise InputError(f"the folder {folder} holds no text files: {_KNOWN}")
    if others:
        notices.append(f"left out of {folder}, as no text: {_some(others)}.")


def _some(paths: list[Path]) -> str:
    """How many, the first names, and how many more there are of which ending."""
    named, more = ", ".join(map(str, paths[:_NAMED])), Counter(path.suffix or "no ending" for path in paths[_NAMED:])
    named += "".join(f", {count:,} more of {ending}" for ending, count in sorted(more.items()))
    return named if len(paths) == 1 else f"{len(paths):,} files ({named})"


def _is_text(path: Path) -> bool:
    """Whether a file met in a folder is one of ours; caches of `datasets` and lists of what was left out are not."""
    try:
        form, compression = _form(path)
    except InputError:
        return False
    if is_list(path) or is_output(path) or path.name in _DATASETS:
        return False
    if form == ".arrow":
        return _is_data(path)
    # One JSON object over many lines is some program's settings; a list may well be somebody's texts: _checked.
    return not status_of(path).st_size or _not_lines(path, compression) != _OBJECT


def _is_data(path: Path) -> bool:
    """Whether an .arrow file holds the rows of its folder: state.json says so where save_to_disk has made it."""
    try:
        state = json.loads((path.parent / "state.json").read_bytes())
        return path.name in [data["filename"] for data in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return not path.name.startswith("cache-")


def _is_cache(path: Path) -> bool:
    """Whether `datasets` keeps this file beside its data."""
    return path.suffix == ".arrow" and (path.parent / "state.json").exists()


_ARRAY, _OBJECT = "one JSON array", "one JSON object over many lines"


def _not_lines(path: Path, compression: str) -> str:
    """What a .json file is, where it is not JSON lines, by its beginning; "" for all other files."""
    if Path(path.name.lower().removesuffix(compression)).suffix != ".json":
        return ""
    check_readable(path)
    if not path.is_file() or not path.stat().st_size:
        return ""
    try:
        with path.open("rb") as stream:
            beginning = next(decompressed(stream, compression, path), b"").removeprefix(b"\xef\xbb\xbf").lstrip()
    except UnreadableFileError:
        return ""  # whoever reads it will tell
    if beginning.startswith(b"["):
        return _ARRAY
    *lines, rest = beginning.split(b"\n")
    whole = not lines or any(_is_object(line) for line in (*lines, rest))  # without a line's end: a long first one
    return "" if whole or not beginning.startswith(b"{") else _OBJECT


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _form(path: Path) -> tuple[str, str]:
    name = path.name.lower()
    compression = next((c for c in COMPRESSIONS if name.endswith(c)), "")
    form = FORMS.get(Path(name.removesuffix(compression)).suffix, "")
    if not form or (form in TABLES and compression):
        raise InputError(f"{path} is not of a kind that can be read: {_KNOWN}")
    return form, compression
