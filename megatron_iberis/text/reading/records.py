"""Raw records -> documents; what can't be used is counted by kind, with where it first stood."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from megatron_iberis.errors import InputError
from megatron_iberis.text.reading.batch import LONGEST, RawBatch, Record
from megatron_iberis.text.reading.inputs import TABLES, InputFile
from megatron_iberis.text.reading.readers import read_batches

INVALID_JSON = "invalid JSON"
INVALID_UTF8 = "invalid UTF-8"
LONE_SURROGATE = "lone surrogate"
MISSING_KEY = "missing key"
WRONG_TYPE = "wrong type"
UNREADABLE = "unreadable file"  # or the rest of one
NUL = "NUL character"  # valid, but the mark of binary data or of a file with a hole; no text holds it
TOO_LONG = f"longer than {LONGEST >> 20} MiB"
EMPTY = "empty"
TOO_SHORT = "too short"

_HINT = 200  # characters of a hint, which may quote the input


@dataclass(frozen=True, slots=True)
class Document:
    """A text, where it stood, its UTF-8 size in bytes and its split key (None unless one was asked for)."""

    text: str
    path: str
    line: int
    size: int
    key: str | None


@dataclass(slots=True)
class Rejects:
    """How many records of one kind could not be used, and the first of them ("a.jsonl:3")."""

    count: int
    first: str


@dataclass(slots=True)
class Tally:
    """What was read: records in all, those without text, with too little, and that could not be used, by kind."""

    read: int = 0
    empty: int = 0
    too_short: int = 0
    rejected: dict[str, Rejects] = field(default_factory=dict)

    @property
    def usable(self) -> int:
        return self.read - self.empty - self.too_short - self.num_rejected

    @property
    def num_rejected(self) -> int:
        return sum(rejects.count for rejects in self.rejected.values())

    def reject(self, kind: str, first: str, count: int = 1) -> None:
        self.rejected.setdefault(kind, Rejects(0, first)).count += count

    def add(self, later: Tally) -> None:
        """Takes in the tally of what came after."""
        self.read += later.read
        self.empty += later.empty
        self.too_short += later.too_short
        for kind, rejects in later.rejected.items():
            self.reject(kind, rejects.first, rejects.count)

    def describe_rejected(self) -> str:
        """ "2 invalid JSON (first: a.jsonl:3), 1 missing key (first: ...)", "" if there are none."""
        return ", ".join(f"{r.count:,} {kind} (first: {r.first})" for kind, r in self.rejected.items())

    def check_usable(self, json_key: str) -> None:
        """InputError if there was not one document to use."""
        if self.usable:
            return
        why = self.describe_rejected() or f"{self.empty:,} are empty, {self.too_short:,} too short"
        if not self.read:
            why = "there is nothing in its files"
        hint = f"; the text is looked for under {json_key!r}, see --json-key" if MISSING_KEY in self.rejected else ""
        raise InputError(f"no document could be used of {self.read:,} in the input: {why}{hint}.")


class _RejectedError(Exception):
    """A record that can't be used: its kind, and a hint for the user."""

    def __init__(self, kind: str, hint: str = "") -> None:
        super().__init__(kind)
        self.kind = kind
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is not used: where it stood (`offset` in bytes of the content, None in a table), and why."""

    path: str
    line: int
    offset: int | None
    kind: str
    hint: str = ""

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}{self.hint}"

    def as_json(self) -> dict[str, Any]:
        """A line of the rejects file."""
        offset = {} if self.offset is None else {"offset": self.offset}
        hint = {"hint": self.hint.strip()} if self.hint else {}
        return {"file": self.path, "line": self.line, **offset, "reason": self.kind, **hint}


def read_documents(
    files: Sequence[InputFile],
    json_key: str,
    tally: Tally,
    split_key: str | None = None,
    empty: list[Path] | None = None,
) -> Iterator[Document]:
    """Every usable document of `files`, in order; the rest is added to `tally`, files without any to `empty`.

    At the end InputError if there was no document.
    """
    for batch in read_batches(files, json_key, split_key, empty=empty):
        for item in parse(batch, json_key, split_key, tally):
            if isinstance(item, Document):
                yield item
    tally.check_usable(json_key)


def parse(
    batch: RawBatch, json_key: str, split_key: str | None, tally: Tally, min_chars: int = 0
) -> Iterator[Document | Reject]:
    """The usable documents of a batch and, among them, those that are not: empty or faulty.

    All are added to `tally`; documents below `min_chars` characters are only counted.
    """
    if batch.fault is not None:
        tally.read += 1
        reject = Reject(batch.path, batch.start.line, None, UNREADABLE, f" {batch.fault}")
        tally.reject(UNREADABLE, reject.place)
        yield reject
        return
    for record in batch.records():
        tally.read += 1
        line, offset = record.line, record.offset
        try:
            text, key = _fields(batch.form, record, json_key, split_key)
            size = _check_text(text)
        except _RejectedError as rejected:
            reject = Reject(batch.path, line, offset, rejected.kind, _printable(rejected.hint))
            tally.reject(rejected.kind, reject.place)
            yield reject
        else:
            if not text or text.isspace():
                tally.empty += 1
                yield Reject(batch.path, line, offset, EMPTY)
            elif len(text) < min_chars:
                tally.too_short += 1
            else:
                yield Document(text, batch.path, line, size, key)


def _check_text(text: str) -> int:
    """Its bytes of UTF-8."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _RejectedError(LONE_SURROGATE) from None
    if "\0" in text:
        raise _RejectedError(NUL)
    return size


def _printable(hint: str) -> str:
    return hint[:_HINT].encode(errors="backslashreplace").decode()


def _fields(form: str, record: Record, json_key: str, split_key: str | None) -> tuple[str, str | None]:
    """Its text and split key."""
    content = record.content
    if len(content or b"") > LONGEST or (content is None and form not in TABLES):
        raise _RejectedError(TOO_LONG)
    if content is None or form != ".jsonl":
        return _decode(content), None if split_key is None or form not in TABLES else _decode(record.key)
    value = _load(content)
    if not isinstance(value, dict):
        raise _RejectedError(WRONG_TYPE, " is not a JSON object")
    text = _string(value, json_key)
    return text, None if split_key is None else _string(value, split_key)


def _load(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # orjson says neither which fault it is nor takes NaN and lone surrogates, which Python's json writes.
        try:
            return json.loads(line.decode("utf-8-sig"))  # a mark at the start of a file that others precede
        except UnicodeDecodeError:
            raise _RejectedError(INVALID_UTF8) from None
        except (ValueError, RecursionError):
            raise _RejectedError(INVALID_JSON) from None


def _string(value: dict[str, Any], key: str) -> str:
    if key not in value:
        raise _RejectedError(MISSING_KEY, f" has no {key!r}, but {', '.join(list(value)[:5]) or 'nothing'}")
    if not isinstance(found := value[key], str):
        raise _RejectedError(WRONG_TYPE, f" has {key!r} of type {type(found).__name__}")
    return found


def _decode(raw: bytes | None) -> str:
    if raw is None:
        raise _RejectedError(WRONG_TYPE)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _RejectedError(INVALID_UTF8) from None
