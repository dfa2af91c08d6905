"""The rows of files as they are published: .jsonl, .json, .parquet, .csv, .tsv, each row with its place.

* Read as they are asked for. A .jsonl file is mapped, of each line only the offset is kept; a large .parquet file is
  copied once into Arrow's form beside itself, which is mapped (arrow.py). So 460,000 conversations take little memory
  and any order of reading is quick.
* A row that cannot be read, and a value that is missing or of another kind, is an InputError naming FILE:LINE.
"""

from __future__ import annotations

import bisect
import csv
import io
import json
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import orjson

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.arrow import open_parquet

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Record:
    """A row of a file. where: "FILE:LINE"; of .parquet, where lines are none, the number of the row from 1."""

    value: Any
    where: str

    def __getitem__(self, key: str) -> Any:
        """The value of a column; InputError if there is none."""
        if not isinstance(self.value, Mapping):
            raise self.error(f"must be an object with {key!r}, not a {type(self.value).__name__}")
        if self.value.get(key) is None:
            raise self.error(f"has no {key!r}")
        return self.value[key]

    def text(self, key: str) -> str:
        """InputError if it is not a text."""
        if not isinstance(value := self[key], str):
            raise self.error(f"{key!r} must be a text, not {value!r:.60}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """InputError if it is not a list of texts, one at least."""
        value = self[key]
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise self.error(f"{key!r} must be a list of texts, not {value!r:.60}")
        return tuple(value)

    def index(self, key: str, count: int) -> int:
        """A number from 0 to `count` - 1, or InputError."""
        value = self[key]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
            raise self.error(f"{key!r} must be a number from 0 to {count - 1}, not {value!r:.60}")
        return value

    def error(self, what: str) -> InputError:
        """what: goes on from the place, "has no answer"."""
        return InputError(f"{self.where}: the row {what}: mend it or take it out.")


class Records(Protocol):
    """Rows by their number; `[i]` raises InputError if that row is broken."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...


def open_records(paths: Sequence[Path], header: Sequence[str] = ()) -> Records:
    """The rows of all files, one after another. header: the columns of .csv and .tsv files that do not name them.

    InputError if a file cannot be read, is empty, or has a form that is not known.
    """
    return chained([_open(path, header) for path in paths], paths[0])


def chained(files: Sequence[Records], path: Path) -> Records:
    """One after another. InputError naming `path` if there are no rows."""
    if not sum(map(len, files)):
        raise InputError(f"{path} is empty: it must hold a row at least.")
    return files[0] if len(files) == 1 else _Chain(files)


def _open(path: Path, header: Sequence[str]) -> Records:
    forms: dict[str, Callable[[], Records]] = {
        ".jsonl": lambda: JsonLines(path),
        ".json": lambda: _open_json(path),
        ".parquet": lambda: _Rows(open_parquet(path), path),
        ".csv": lambda: read_table(decoded(path.read_bytes(), path), path, header),
        ".tsv": lambda: read_table(decoded(path.read_bytes(), path), path, header, "\t"),
    }
    if path.suffix not in forms:
        raise InputError(f"{path} is not of a known form: use {', '.join(forms)}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file.")
    if not path.exists():
        raise InputError(f"{path} is not there: check the name.")
    return chained([forms[path.suffix]()], path)


class _Chain:
    def __init__(self, files: Sequence[Records]) -> None:
        self._files = files
        self._ends = list(accumulate(len(file) for file in files))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        file = bisect.bisect_right(self._ends, index)
        return self._files[file][index - (self._ends[file - 1] if file else 0)]


class _Rows:
    """Rows that are in memory, or mapped. `lines`: where each begins."""

    def __init__(self, rows: Sequence[Any], path: Path, lines: Sequence[int] | None = None) -> None:
        self._rows, self._path, self._lines = rows, path, lines

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        return Record(self._rows[index], f"{self._path}:{self._lines[index] if self._lines else index + 1}")


class JsonLines:
    """A JSON value a line. Of each line its offset is kept; blank ones count as lines, but are no rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes: mmap.mmap | bytes = b""
        if path.stat().st_size:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._bytes[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{path}:1: the text is UTF-16: save the file as UTF-8.")
        self._starts, self._lines = self._index()

    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Offset and number of each line that is not blank."""
        size, step = len(self._bytes), 1 << 24
        ends = [
            at + np.flatnonzero(np.frombuffer(self._bytes[at : at + step], np.uint8) == 10)
            for at in range(0, size, step)
        ]
        starts = np.concatenate([np.zeros(1, np.int64), *(end + 1 for end in ends)])
        starts = starts[starts < size]
        lengths = np.diff(np.append(starts, size))
        short = np.flatnonzero(lengths < 80)  # longer lines are not blank, or an error worth to be told
        blank = [i for i in short if not self._bytes[starts[i] : starts[i] + lengths[i]].strip()]
        return np.delete(starts, blank), np.delete(np.arange(1, len(starts) + 1), blank)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Record:
        start = int(self._starts[index])
        end = self._bytes.find(b"\n", start)
        line = self._bytes[start : len(self._bytes) if end < 0 else end]
        where = f"{self._path}:{self._lines[index]}"
        return Record(_parse(line.removeprefix(_BYTE_ORDER_MARK), where), where)


def _parse(line: bytes, where: str) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError:
            raise InputError(f"{where}: the text is not UTF-8: save the file as UTF-8.") from None
        raise InputError(f"{where}: not JSON ({error}): mend the line or take it out.") from None


def decoded(content: bytes, path: Path) -> str:
    """The text of a file; InputError naming the line if it is not UTF-8."""
    try:
        return content.removeprefix(_BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: the text is not UTF-8: save the file as UTF-8.") from None


def _open_json(path: Path) -> Records:
    """A list of rows; or, as many name their .jsonl so, a row a line."""
    text = decoded(path.read_bytes(), path)
    if not text.strip():
        return _Rows([], path)
    try:
        rows, lines = _read_list(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}: not JSON ({error.msg}): mend the file; a row a line is fine too, as .jsonl."
        ) from None
    except RecursionError:
        raise InputError(f"{path} holds lists within lists without an end: it is no list of rows, mend it.") from None
    return JsonLines(path) if rows is None else _Rows(rows, path, lines)


def _read_list(text: str) -> tuple[list[Any] | None, list[int]]:
    """The values of a JSON list and the line at which each begins; None if the text is a value a line."""
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(text, _skip(text, 0, " \t\r\n"))
    if _skip(text, end, " \t\r\n") < len(text):
        return None, []
    if not isinstance(first, list):
        return [first], [1]
    rows, lines, line, seen = [], [], 1, 0
    at = _skip(text, text.index("[") + 1, " \t\r\n")
    while text[at] != "]":
        value, end = decoder.raw_decode(text, at)
        line += text.count("\n", seen, at)
        seen = at
        rows.append(value)
        lines.append(line)
        at = _skip(text, end, " \t\r\n,")
    return rows, lines


def _skip(text: str, at: int, over: str) -> int:
    while at < len(text) and text[at] in over:
        at += 1
    return at


def read_table(text: str, path: Path, header: Sequence[str] = (), delimiter: str = ",") -> Records:
    """The rows of .csv, with its quotes, or of .tsv, which has none. A first row that is the header is left out."""
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    columns = [name.lower() for name in header]
    rows, lines, line = [], [], 1
    for cells in reader:
        if not columns:
            columns = cells
        elif cells and [cell.lower() for cell in cells] != columns:
            if len(cells) != len(columns):
                expected = f"{len(columns)} columns ({', '.join(columns)})"
                raise InputError(f"{path}:{line}: the row has {len(cells)} columns instead of {expected}: mend it.")
            rows.append(dict(zip(columns, cells, strict=True)))
            lines.append(line)
        line = reader.line_num + 1
    return _Rows(rows, path, lines)
