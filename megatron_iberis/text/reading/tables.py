"""Rows and columns -> batches: .parquet, and .arrow as `datasets` (streams) or Feather (files) write it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.text.reading.batch import Position, RawBatch
from megatron_iberis.text.reading.inputs import InputFile

_ROWS = 128  # in a batch
_FILE_MAGIC = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_table(
    file: InputFile, json_key: str, split_key: str | None, start: Position, before: int
) -> Iterator[RawBatch]:
    """The batches of `file` from row `start.offset` on; `before` are the bytes of the files before it."""
    import pyarrow

    columns = [json_key] if split_key is None else list({json_key, split_key})
    read = _parquet_rows if file.form == ".parquet" else _arrow_rows
    try:
        for row, share, part in read(file, columns, start.offset):
            texts = _strings(part[json_key])
            keys = None if split_key is None else _strings(part[split_key])
            first, end = (Position(start.file, number, number + 1) for number in (row, row + len(part)))
            bytes_read = before + int(file.size * share)
            yield RawBatch(str(file.path), file.form, first, end, bytes_read, None, texts, keys)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file.path} is damaged ({error}): fetch or make it again.") from None
    yield RawBatch(str(file.path), file.form, start, Position(start.file + 1), before + file.size, None)


def _parquet_rows(file: InputFile, columns: list[str], skip: int) -> Iterator[tuple[int, float, Any]]:
    """(number of the first row, share of the file read, rows), without the first `skip` rows."""
    from pyarrow import parquet

    with parquet.ParquetFile(file.path) as table:
        _check_columns(file, columns, table.schema_arrow.names)
        metadata = table.metadata
        row = group = 0
        while group < metadata.num_row_groups and row + metadata.row_group(group).num_rows <= skip:
            row += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        for batch in table.iter_batches(_ROWS, row_groups=groups, columns=columns):
            for number, part in _slices(batch, row, skip):
                yield number, (number + len(part)) / metadata.num_rows, part
            row += len(batch)


def _arrow_rows(file: InputFile, columns: list[str], skip: int) -> Iterator[tuple[int, float, Any]]:
    import pyarrow
    from pyarrow import ipc

    # Not mapped: pages of a mapped file would count as this process's memory.
    with pyarrow.OSFile(str(file.path)) as source:
        if source.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
            reader = ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            # A reader takes any end between two batches for the end.
            source.seek(-len(_END_OF_STREAM), os.SEEK_END)
            if source.read() != _END_OF_STREAM:
                raise OSError("it is cut off before its end")
            source.seek(0)
            batches = reader = ipc.open_stream(source)
        _check_columns(file, columns, reader.schema.names)
        row = 0
        for batch in batches:
            share = source.tell() / file.size
            for number, part in _slices(batch, row, skip):
                yield number, share, part
            row += len(batch)


def _slices(batch: Any, row: int, skip: int) -> Iterator[tuple[int, Any]]:
    """Parts of at most _ROWS rows of a batch that begins at `row`, without the first `skip` rows of the file."""
    for first in range(max(0, skip - row), len(batch), _ROWS):
        yield row + first, batch.slice(first, _ROWS)


def _check_columns(file: InputFile, wanted: list[str], present: list[str]) -> None:
    for name in wanted:
        if name not in present:
            raise InputError(f"{file.path} has no column {name!r}: choose among {', '.join(present)}.")


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
