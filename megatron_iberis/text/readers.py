"""Files -> batches of raw records, in constant memory: cheap enough that one process reads for many workers.

* .jsonl: a record is a line. .parquet: a row. What is in a record is looked at in records.py, by the workers.
* .txt: a file is one document, but one of more than 1 MiB is cut into several, after a blank line where there is one,
  else at a line's end: long files stay readable in constant memory, and no paragraph becomes a "document".
* A compressed file that ends too early, or a damaged one, is a ValueError naming it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import zstandard

from megatron_iberis.text.inputs import InputFile

_BLOCK = 1 << 18  # bytes read at a time
_BATCH = 1 << 20  # bytes of records in a batch, about
_PART = 1 << 20  # bytes of a document out of a .txt file, at most
_ROWS = 128  # of a parquet file in a batch
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Batch:
    """Raw records that stand together in a file.

    `records` are JSON lines (`form` ".jsonl") or UTF-8 texts, None where a column holds no string; `keys` the split
    keys of the rows of a parquet file; `lines` the line or row of each record, from 1; `consumed` the bytes of the
    file that were read since its batch before.
    """

    path: str
    form: str
    lines: list[int]
    records: list[bytes | None]
    keys: list[bytes | None] | None
    consumed: int


def read_batches(files: Iterable[InputFile], json_key: str, split_key: str | None = None) -> Iterator[Batch]:
    """All batches of all files, in order. `json_key` and `split_key` name parquet columns (and JSON keys later)."""
    for file in files:
        if file.form == ".parquet":
            yield from _read_parquet(file, json_key, split_key)
        else:
            with file.path.open("rb") as stream:
                records = _records(file, stream)
                yield from _batches(file, stream, records)


def _batches(file: InputFile, stream: IO[bytes], records: Iterable[tuple[int, bytes]]) -> Iterator[Batch]:
    lines: list[int] = []
    held: list[bytes | None] = []
    size = position = 0
    for line, record in records:
        lines.append(line)
        held.append(record)
        size += len(record)
        if size >= _BATCH:
            now = stream.tell()
            yield Batch(str(file.path), file.form, lines, held, None, now - position)
            lines, held, size, position = [], [], 0, now
    yield Batch(str(file.path), file.form, lines, held, None, stream.tell() - position)


def _records(file: InputFile, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    blocks = _without_bom(_blocks(file, stream))
    return _lines(blocks) if file.form == ".jsonl" else _parts(blocks)


def _blocks(file: InputFile, stream: IO[bytes]) -> Iterator[bytes]:
    """The file's content, decompressed."""
    try:
        if file.compression == ".zst":
            yield from _zstd_blocks(stream)
        else:
            source: Any = gzip.GzipFile(fileobj=stream) if file.compression == ".gz" else stream
            while block := source.read(_BLOCK):
                yield block
    except EOFError:
        raise ValueError(f"{file.path} is cut off before its end: fetch or make it again.") from None
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file.path} is damaged ({error}): fetch or make it again.") from None


def _zstd_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    # zstandard's own readers take the end of a cut-off file for the end of the data; the decompressor knows better.
    context = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None
    while block := stream.read(_BLOCK // 4):
        while block:
            frame = frame or context.decompressobj()
            yield frame.decompress(block)
            block = b""
            if frame.eof:
                block, frame = frame.unused_data, None
    if frame is not None:
        raise EOFError


def _without_bom(blocks: Iterator[bytes]) -> Iterator[bytes]:
    first = next((block for block in blocks if block), b"")
    yield first.removeprefix(_BOM)
    yield from blocks


def _lines(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends."""
    number = 0
    begun: list[bytes] = []  # pieces of the line that is not complete yet; joined once, as it may be long
    for block in blocks:
        *complete, rest = block.split(b"\n")
        for piece in complete:
            number += 1
            yield number, b"".join([*begun, piece])
            begun = []
        begun.append(rest)
    if last := b"".join(begun):
        yield number + 1, last


def _parts(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The parts of a plain text, each with the number of its first line."""
    line = 1
    held = b""
    for block in blocks:
        held += block
        while len(held) > _PART:
            end = _cut(held)
            yield line, held[:end]
            line += held.count(b"\n", 0, end)
            held = held[end:]
    if held:
        yield line, held


def _cut(text: bytes) -> int:
    """Where to cut within the first _PART bytes: behind a blank line, a line's end, else between two characters."""
    for mark in (b"\n\n", b"\n"):
        if (found := text.rfind(mark, 0, _PART)) >= 0:
            return found + len(mark)
    end = _PART
    while end > _PART - 4 and text[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _read_parquet(file: InputFile, json_key: str, split_key: str | None) -> Iterator[Batch]:
    import pyarrow
    from pyarrow import parquet

    columns = [json_key] if split_key is None else list({json_key, split_key})
    try:
        with parquet.ParquetFile(file.path) as table:
            _check_columns(file, columns, table.schema_arrow.names)
            rows = 0
            for batch in table.iter_batches(_ROWS, columns=columns):
                keys = None if split_key is None else _strings(batch[split_key])
                lines = list(range(rows + 1, rows + 1 + len(batch)))
                rows += len(batch)
                consumed = file.size * len(batch) // max(1, table.metadata.num_rows)
                yield Batch(str(file.path), ".parquet", lines, _strings(batch[json_key]), keys, consumed)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file.path} is damaged ({error}): fetch or make it again.") from None


def _check_columns(file: InputFile, wanted: list[str], present: list[str]) -> None:
    for name in wanted:
        if name not in present:
            raise ValueError(f"{file.path} has no column {name!r}: choose among {', '.join(present)}.")


def _strings(column: Any) -> list[bytes | None]:
    """The column's strings as the bytes that the file holds, which may not be UTF-8; None for anything else."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        return [None] * len(column)
    values: list[bytes | None] = column.cast(pyarrow.large_binary()).to_pylist()
    return values
