"""Compressed bytes -> their content: what `gzip -t`, `zstd -t` or `xz -t` finds fault with is refused, never cut off.

A file may hold several members (gzip), frames (zstd) or streams (xz), one behind the other.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import zstandard

from megatron_iberis.text.reading.unreadable import UnreadableFileError

BLOCK = 1 << 20  # bytes of content in a block, about
_READ = 1 << 16  # compressed bytes read at a time
_ZSTD_READ = 1 << 11  # so few because zeros may come out 32,000-fold
_GZIP_HEADER = 31  # zlib's window bits for gzip, whose header it then checks too
_XZ_PADDING = 4  # zeros behind an xz stream come in fours


class _DamagedError(Exception):
    """What is wrong with the content."""


def decompressed(stream: IO[bytes], compression: str, path: Path) -> Iterator[bytes]:
    """The content of `stream` in blocks of about BLOCK bytes; `compression` is .gz, .zst, .xz or "".

    UnreadableFileError naming `path` if it is damaged, cut off, or something else follows its end.
    """
    try:
        yield from _gathered(_READERS[compression](stream))
    except EOFError:
        raise UnreadableFileError(path, "is cut off before its end") from None
    except (_DamagedError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise UnreadableFileError(path, f"is damaged ({error})") from None


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Joined, as thousands of small members should not become thousands of batches."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _plain(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(BLOCK):
        yield block


def _gzip(stream: IO[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(_GZIP_HEADER)
    begun, first = False, True
    while block := stream.read(_READ):
        while block:
            if not (begun or first) and block[0] == 0:  # tapes pad with zeros
                _check_zeros(block, stream)
                return
            begun = True
            try:
                yield member.decompress(block, BLOCK)
            except zlib.error as error:
                raise error if first else _DamagedError(f"behind its first member: {error}") from None
            block = member.unconsumed_tail
            if member.eof:
                block, member = member.unused_data, zlib.decompressobj(_GZIP_HEADER)
                begun = first = False
    if begun or first:
        raise EOFError


def _check_zeros(block: bytes, stream: IO[bytes]) -> None:
    """Only zeros may follow."""
    while block:
        if block.strip(b"\0"):
            raise _DamagedError("something else stands behind its end")
        block = stream.read(_READ)


def _xz(stream: IO[bytes]) -> Iterator[bytes]:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    begun, zeros = True, 0
    while block := stream.read(_READ):
        while block:
            if not begun:
                following = block.lstrip(b"\0")
                zeros += len(block) - len(following)
                if not (block := following):
                    break
                _check_padding(zeros)
                decoder, begun, zeros = lzma.LZMADecompressor(lzma.FORMAT_XZ), True, 0
            yield decoder.decompress(block, BLOCK)
            while not (decoder.eof or decoder.needs_input):
                yield decoder.decompress(b"", BLOCK)
            block = b""
            if decoder.eof:
                block, begun = decoder.unused_data, False
    if begun:
        raise EOFError
    _check_padding(zeros)


def _check_padding(zeros: int) -> None:
    if zeros % _XZ_PADDING:
        raise _DamagedError(f"{zeros} zeros stand behind a stream, which is no multiple of {_XZ_PADDING}")


def _zstd(stream: IO[bytes]) -> Iterator[bytes]:
    # zstandard's own readers take the end of a cut-off file for the end of the data; the decompressor knows better.
    context = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None
    while block := stream.read(_ZSTD_READ):
        while block:
            frame = frame or context.decompressobj()
            yield frame.decompress(block)
            block = b""
            if frame.eof:
                block, frame = frame.unused_data, None
    if frame is not None:
        raise EOFError


_READERS: dict[str, Callable[[IO[bytes]], Iterator[bytes]]] = {"": _plain, ".gz": _gzip, ".xz": _xz, ".zst": _zstd}
