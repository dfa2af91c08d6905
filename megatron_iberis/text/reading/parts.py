"""`Part`: what one of several machines reads of the input; all parts in order are the input, and none overlap.

* Shard i of N takes the bytes from (i - 1)/N to i/N of all files, as they lie, so its documents stand together in the
  order of the whole. Where it begins and ends hangs on the list of files, their sizes and N alone.
* A plain .jsonl is cut between two lines: a line belongs to the shard in whose bytes it begins.
* Any other file is read whole, by the shard in whose bytes its middle lies: what is compressed can only be read from
  its beginning, a long .txt is cut into documents from there, and the rest of a damaged table is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_iberis.errors import InputError
from megatron_iberis.storage.hashing import blocks
from megatron_iberis.text.reading.batch import Position
from megatron_iberis.text.reading.inputs import InputFile
from megatron_iberis.text.reading.streams import UTF16


@dataclass(frozen=True, slots=True)
class Part:
    """The documents from `start` to before `stop` of `files`, the whole input; `line` of both is not known yet.

    `before` and `size` are bytes of the input: those in front of it, and its own, about.
    """

    files: list[InputFile]
    start: Position
    stop: Position
    before: int
    size: int

    def numbered_start(self) -> Position:
        """The start with its line, for which the lines before it in its file are counted."""
        start = self.start
        if not start.offset:
            return start
        return Position(start.file, start.offset, 1 + _lines_before(self.files[start.file], start.offset))


def part_of(files: Sequence[InputFile], number: int, count: int) -> Part:
    """Part `number` (from 1) of `count`; InputError if standard input is to be cut up."""
    if count > 1 and any(file.is_stdin for file in files):
        raise InputError("standard input cannot be read by several shards: write it to a file that all of them see.")
    size = sum(file.size for file in files)
    begin, end = size * (number - 1) // count, size * number // count
    stop = Position(len(files)) if number == count else _boundary(files, end)
    return Part(list(files), _boundary(files, begin), stop, begin, end - begin)


def _boundary(files: Sequence[InputFile], cut: int) -> Position:
    """Where the part begins that the byte `cut` of all files is the first of."""
    before = 0
    for number, file in enumerate(files):
        if cut <= before:
            return Position(number)
        if cut < before + file.size:
            if _can_be_cut(file):
                offset = _line_start(file, cut - before)
                if offset < file.size:
                    return Position(number, offset)
            elif cut <= before + file.size // 2:
                return Position(number)
        before += file.size
    return Position(len(files))


def _can_be_cut(file: InputFile) -> bool:
    if file.form != ".jsonl" or file.compression:
        return False
    with file.path.open("rb") as stream:
        return not stream.read(len(UTF16[0])).startswith(UTF16)  # refused as a whole, or passed over


def _line_start(file: InputFile, offset: int) -> int:
    """Where the first line begins that begins at `offset` (above 0) or behind it; the file's size if none does."""
    with file.path.open("rb") as stream:
        stream.seek(offset - 1)
        position = offset - 1
        while block := stream.read(1 << 20):
            if (found := block.find(b"\n")) >= 0:
                return position + found + 1
            position += len(block)
    return file.size


def _lines_before(file: InputFile, offset: int) -> int:
    lines = 0
    for block in blocks(file.path):
        lines += block.count(b"\n", 0, offset)
        offset -= len(block)
        if offset <= 0:
            break
    return lines
