"""`Batch`: raw records on their way from the reader to a worker, and `Position`, where the next ones begin."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of a record. A longer one is no text that somebody wrote but a broken file, and memory has an end.
LONGEST = 16 << 20


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the input: number of the file, then bytes of its (decompressed) content, or rows of a table.

    `line` is the number of the line or row that begins there.
    """

    file: int = 0
    offset: int = 0
    line: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw records that stand together in a file.

    `records` are JSON lines (`form` ".jsonl") or UTF-8 texts; None for a line longer than LONGEST, or where a column
    holds no string. `keys` are the split keys of the rows of a table; `lines` the line or row of each record, from 1;
    `offsets` where it begins in the content, in bytes (None for a table); `end` where the next batch begins;
    `bytes_read` how much of all input files has been read by then.
    """

    path: str
    form: str
    file: int
    lines: list[int]
    offsets: list[int] | None
    records: list[bytes | None]
    keys: list[bytes | None] | None
    end: Position
    bytes_read: int
