"""Streams of bytes -> batches: .jsonl and .txt, plain or compressed, and standard input.

* .jsonl: a record is a line.
* .txt: a file is one document, but one of more than 1 MiB is cut into several, after a blank line where there is one,
  else at a line's end: long files stay readable in constant memory, and no paragraph becomes a "document".
* A compressed file that ends too early, or a damaged one, is a ValueError naming it.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

import zstandard

from megatron_iberis.text.batch import LONGEST, Batch, Position
from megatron_iberis.text.inputs import InputFile

_BLOCK = 1 << 18  # bytes read at a time
_ZSTD_BLOCK = 1 << 11  # so few because zeros may come out 32,000-fold
_BATCH = 1 << 20  # bytes of records in a batch, about
_PART = 1 << 20  # bytes of a document out of a .txt file, at most
_BOM = b"\xef\xbb\xbf"

_Record = tuple[int, int, "bytes | None"]  # line, offset, content


def read_stream(file: InputFile, start: Position, before: int) -> Iterator[Batch]:
    """The batches of `file` from `start` on; `before` are the bytes of the files before it."""
    with _open(file) as stream:
        lines: list[int] = []
        offsets: list[int] = []
        held: list[bytes | None] = []
        size = 0

        def batch(end: Position) -> Batch:
            read = before + (0 if file.is_stdin else stream.tell())
            return Batch(str(file.path), file.form, start.file, lines, offsets, held, None, end, read)

        for line, offset, record in _records(file, stream, start):
            if size >= _BATCH:
                yield batch(Position(start.file, offset, line))
                lines, offsets, held, size = [], [], [], 0
            lines.append(line)
            offsets.append(offset)
            held.append(record)
            size += len(record or b"")
        yield batch(Position(start.file + 1))


def _open(file: InputFile) -> contextlib.AbstractContextManager[IO[bytes]]:
    return contextlib.nullcontext(sys.stdin.buffer) if file.is_stdin else file.path.open("rb")


def _records(file: InputFile, stream: IO[bytes], start: Position) -> Iterator[_Record]:
    offset = start.offset
    blocks = _blocks(file, stream)
    if offset and not file.compression and not file.is_stdin:
        stream.seek(offset)
    elif offset:
        blocks = _skip(blocks, offset, file)
    else:
        first = next((block for block in blocks if block), b"")
        offset = len(_BOM) if first.startswith(_BOM) else 0
        blocks = _chain(first[offset:], blocks)
    split = _lines if file.form == ".jsonl" else _parts
    return split(blocks, start.line, offset)


def _blocks(file: InputFile, stream: IO[bytes]) -> Iterator[bytes]:
    """The file's content, decompressed."""
    try:
        if file.compression == ".zst":
            yield from _zstd_blocks(stream)
        else:
            source: Any = stream
            if file.compression == ".gz":
                source = gzip.GzipFile(fileobj=stream)
            elif file.compression == ".xz":
                source = lzma.LZMAFile(stream)  # noqa: SIM115 (the stream is closed by whoever opened it)
            while block := source.read(_BLOCK):
                yield block
    except EOFError:
        raise ValueError(f"{file.path} is cut off before its end: fetch or make it again.") from None
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise ValueError(f"{file.path} is damaged ({error}): fetch or make it again.") from None


def _zstd_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    # zstandard's own readers take the end of a cut-off file for the end of the data; the decompressor knows better.
    context = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None
    held: list[bytes] = []
    size = 0
    while block := stream.read(_ZSTD_BLOCK):
        while block:
            frame = frame or context.decompressobj()
            held.append(frame.decompress(block))
            size += len(held[-1])
            block = b""
            if frame.eof:
                block, frame = frame.unused_data, None
        if size >= _BLOCK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)
    if frame is not None:
        raise EOFError


def _skip(blocks: Iterator[bytes], count: int, file: InputFile) -> Iterator[bytes]:
    for block in blocks:
        if count < len(block):
            yield block[count:]
            break
        count -= len(block)
    else:
        if count:
            raise ValueError(f"{file.path} has become shorter since it was read: start again without --resume.")
    yield from blocks


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _lines(blocks: Iterable[bytes], line: int, offset: int) -> Iterator[_Record]:
    """Numbered lines without their ends; the content of one longer than LONGEST is never held, and None."""
    begun: list[bytes] = []  # pieces of the line that is not complete yet; joined once, as it may be long
    size = 0

    def ended() -> _Record:
        return line, offset, None if size > LONGEST else b"".join(begun)

    for block in blocks:
        *complete, rest = block.split(b"\n")
        for piece in complete:
            begun.append(piece)
            size += len(piece)
            yield ended()
            line, offset = line + 1, offset + size + 1
            begun, size = [], 0
        size += len(rest)
        begun.append(rest)
        if size > LONGEST:
            begun = []
    if size:
        yield ended()


def _parts(blocks: Iterable[bytes], line: int, offset: int) -> Iterator[_Record]:
    """The parts of a plain text, each with the number of its first line."""
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
    for mark in (b"\n\n", b"\n"):
        if (found := text.rfind(mark, 0, _PART)) >= 0:
            return found + len(mark)
    end = _PART
    while end > _PART - 4 and text[end] & 0xC0 == 0x80:
        end -= 1
    return end
