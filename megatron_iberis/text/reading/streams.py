"""Streams of bytes -> batches: .jsonl and .txt, plain or compressed, and standard input.

* .jsonl: a record is a line.
* .txt: a file is one document, but one of more than 1 MiB is cut into several, after a blank line where there is one,
  else at a line's end: long files stay readable in constant memory, and no paragraph becomes a "document".
* A byte order mark is no text; that of UTF-16 is refused.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import IO

from megatron_iberis.text.reading.batch import LONGEST, Position, RawBatch
from megatron_iberis.text.reading.decompression import decompressed
from megatron_iberis.text.reading.inputs import InputFile
from megatron_iberis.text.reading.unreadable import UnreadableFileError

_PART = 1 << 20  # bytes of a document out of a .txt file, at most
_BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # and the first one begins UTF-32 too

_Part = tuple[int, int, "bytes | None"]  # first line, offset, content


def read_stream(file: InputFile, start: Position, before: int, stop: int | None = None) -> Iterator[RawBatch]:
    """The batches of `file` from `start` to the byte `stop`, where a line of a plain file begins, or to its end.

    `before` are the bytes of the files before it.
    """
    with _open(file) as stream:
        begin = start
        content: bytes | None = b""
        for line, offset, following in _parts(file, stream, start, stop):
            end = Position(start.file, offset, line)
            if content != b"":
                yield _batch(file, stream, begin, end, before, content)
            begin, content = end, following
        yield _batch(file, stream, begin, Position(start.file + 1), before, content)


def _batch(
    file: InputFile, stream: IO[bytes], start: Position, end: Position, before: int, content: bytes | None
) -> RawBatch:
    read = before + (0 if file.is_stdin else stream.tell())
    return RawBatch(str(file.path), file.form, start, end, read, content)


def _open(file: InputFile) -> contextlib.AbstractContextManager[IO[bytes]]:
    return contextlib.nullcontext(sys.stdin.buffer) if file.is_stdin else file.path.open("rb")


def _parts(file: InputFile, stream: IO[bytes], start: Position, stop: int | None) -> Iterator[_Part]:
    """What batches are made of: whole lines, or a text."""
    offset = start.offset
    blocks = _blocks(file, stream)
    if offset and not file.compression and not file.is_stdin:
        if file.size < offset:
            raise _shorter(file)
        stream.seek(offset)
    elif offset:
        blocks = _skip(blocks, offset, file)
    else:
        first = b""
        while len(first) < len(_BOM) and (block := next(blocks, b"")):
            first += block
        if first.startswith(UTF16):
            raise UnreadableFileError(
                file.path, "is UTF-16, not UTF-8", "convert it (iconv -f UTF-16 -t UTF-8), or leave it out"
            )
        offset = len(_BOM) if first.startswith(_BOM) else 0
        blocks = _chain(first[offset:], blocks)
    if stop is not None:
        blocks = _first(blocks, stop - offset)
    split = _lines if file.form == ".jsonl" else _texts
    return split(blocks, start.line, offset)


def _blocks(file: InputFile, stream: IO[bytes]) -> Iterator[bytes]:
    """The file's content, decompressed."""
    if file.size or file.is_stdin:  # of 0 bytes, with any ending: a shard to which nothing came
        yield from decompressed(stream, file.compression, file.path)


def _skip(blocks: Iterator[bytes], count: int, file: InputFile) -> Iterator[bytes]:
    for block in blocks:
        if count < len(block):
            yield block[count:]
            break
        count -= len(block)
    else:
        if count:
            raise _shorter(file)
    yield from blocks


def _first(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    for block in blocks:
        yield block[:count]
        count -= len(block)
        if count <= 0:
            break


def _shorter(file: InputFile) -> UnreadableFileError:
    return UnreadableFileError(
        file.path, "has become shorter since it was read", "leave it out, or start again without --resume"
    )


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _lines(blocks: Iterable[bytes], line: int, offset: int) -> Iterator[_Part]:
    """The whole lines of each block; of one longer than LONGEST nothing is held: its content is None."""
    begun: list[bytes] = []  # pieces of the line that is not complete yet; joined once, as it may be long
    size = 0
    for block in blocks:
        if size > LONGEST and (end := block.find(b"\n") + 1):
            yield line, offset, None
            line, offset = line + 1, offset + size + end
            block, size = block[end:], 0
        if end := block.rfind(b"\n") + 1:
            content = b"".join([*begun, block[:end]])
            yield line, offset, content
            line, offset = line + content.count(b"\n"), offset + len(content)
            begun, size = [], 0
        begun.append(block[end:])
        size += len(block) - end
        if size > LONGEST:
            begun = []
    if size:
        yield line, offset, None if size > LONGEST else b"".join(begun)


def _texts(blocks: Iterable[bytes], line: int, offset: int) -> Iterator[_Part]:
    """The parts of a plain text."""
    held = b""
    for block in blocks:
        held += block
        while len(held) > _PART:
            end = _cut(held)
            yield line, offset, held[:end]
            line += held.count(b"\n", 0, end)
            offset += end
            held = held[end:]
    if held:
        yield line, offset, held


def _cut(text: bytes) -> int:
    """Where to cut within the first _PART bytes: behind a blank line, a line's end, else between two characters."""
    for marks in ((b"\n\n", b"\n\r\n"), (b"\n",)):
        ends = [found + len(mark) for mark in marks if (found := text.rfind(mark, 0, _PART)) >= 0]
        if ends:
            return max(ends)
    end = _PART
    while end > _PART - 4 and text[end] & 0xC0 == 0x80:
        end -= 1
    return end
