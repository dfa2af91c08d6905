"""`RawBatch`: raw records on their way from the reader to a worker, and `Position`, where the next ones begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from megatron_iberis.text.reading.inputs import TABLES

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


class Record(NamedTuple):
    """A JSON line or a UTF-8 text, None for a line longer than LONGEST, or where a column holds no string.

    `line` counts lines or rows from 1; `offset` is in bytes of the content (None in a table); `key` is the split key
    that stands beside it in a table.
    """

    line: int
    offset: int | None
    content: bytes | None
    key: bytes | None


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Raw records that stand together in a file, from `start` to `end`, where the next batch begins.

    `content` is what the file holds there, whole JSON lines (`form` ".jsonl") or a text, in one piece: cutting it up
    is the worker's, and one piece travels fastest. None stands for a line longer than LONGEST. A table's rows are
    `texts` and, if asked for, `keys`. `bytes_read` is how much of all input files has been read by then. `fault` says
    what is wrong with a file that cannot be read further.
    """

    path: str
    form: str
    start: Position
    end: Position
    bytes_read: int
    content: bytes | None
    texts: Sequence[bytes | None] = ()
    keys: Sequence[bytes | None] | None = None
    fault: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no record in it, nor a fault."""
        if self.fault is not None:
            return False
        if self.form in TABLES:
            return not self.texts
        return self.content == b"" or (self.form == ".jsonl" and bool(self.content and self.content.isspace()))

    def records(self) -> Iterator[Record]:
        """The records, without blank JSON lines, which are none."""
        line, offset = self.start.line, self.start.offset
        if self.form in TABLES:
            for i, text in enumerate(self.texts):
                yield Record(line + i, None, text, None if self.keys is None else self.keys[i])
        elif self.form == ".jsonl" and self.content is not None:
            for number, content in enumerate(self.content.split(b"\n"), line):
                if content and not content.isspace():
                    yield Record(number, offset, content, None)
                offset += len(content) + 1
        elif self.content != b"":
            yield Record(line, offset, self.content, None)
