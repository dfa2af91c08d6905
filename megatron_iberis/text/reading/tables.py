"""Rows and columns -> batches: .parquet, and .arrow as `datasets` (streams) or Feather (files) write it.

A column holds text if its values are strings or bytes, however Arrow stores them: long or as views, in a dictionary,
in runs, as an extension type. Any other column is refused; a null is a record of the wrong type.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.text.reading.batch import Position, RawBatch
from megatron_iberis.text.reading.inputs import InputFile
from megatron_iberis.text.reading.unreadable import UnreadableFileError

_ROWS = 128  # in a batch
_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_table(
    file: InputFile, json_key: str, split_key: str | None, start: Position, before: int
) -> Iterator[RawBatch]:
    """The batches of `file` from row `start.offset` on; `before` are the bytes of the files before it.

    UnreadableFileError if it is damaged, InputError if a column is not there, there twice, or holds no text.
    """
    import pyarrow

    columns = [json_key] if split_key is None else list({json_key, split_key})
    read = _parquet_rows if file.form == ".parquet" else _arrow_rows
    try:
        for row, share, part in read(file, columns, start.offset):
            texts = _strings(_column(part, json_key))
            keys = None if split_key is None else _strings(_column(part, split_key))
            first, end = (Position(start.file, number, number + 1) for number in (row, row + len(part)))
            bytes_read = before + int(file.size * share)
            yield RawBatch(str(file.path), file.form, first, end, bytes_read, None, texts, keys)
    except pyarrow.ArrowNotImplementedError as error:
        raise UnreadableFileError(file.path, f"cannot be read by this pyarrow ({error})") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise UnreadableFileError(file.path, f"is damaged ({error})") from None
    yield RawBatch(str(file.path), file.form, start, Position(start.file + 1), before + file.size, None)


def _parquet_rows(file: InputFile, columns: list[str], skip: int) -> Iterator[tuple[int, float, Any]]:
    """(number of the first row, share of the file read, rows), without the first `skip` rows."""
    from pyarrow import parquet

    if not file.size:
        return
    with parquet.ParquetFile(file.path) as table:
        _check_columns(file, columns, table.schema_arrow)
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

    if not file.size:
        return
    # Not mapped: pages of a mapped file would count as this process's memory.
    with pyarrow.OSFile(str(file.path)) as source:
        magic = source.read(len(_FILE_MAGIC))
        if magic.startswith(_FEATHER_1_MAGIC):
            raise UnreadableFileError(file.path, "is Feather version 1", "write it again as version 2 or .parquet")
        if magic == _FILE_MAGIC:
            reader = ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            # A reader takes any end between two batches for the end.
            source.seek(-min(file.size, len(_END_OF_STREAM)), os.SEEK_END)
            if source.read() != _END_OF_STREAM:
                raise OSError("it is cut off before its end")
            source.seek(0)
            batches = reader = ipc.open_stream(source)
        _check_columns(file, columns, reader.schema)
        row = 0
        for batch in batches:
            share = source.tell() / file.size
            for number, part in _slices(batch, row, skip):
                yield number, share, part
            row += len(batch)
        if magic != _FILE_MAGIC and source.tell() < file.size:
            raise OSError("something else stands behind its end")


def _slices(batch: Any, row: int, skip: int) -> Iterator[tuple[int, Any]]:
    """Parts of at most _ROWS rows of a batch that begins at `row`, without the first `skip` rows of the file."""
    for first in range(max(0, skip - row), len(batch), _ROWS):
        yield row + first, batch.slice(first, _ROWS)


def _check_columns(file: InputFile, wanted: list[str], schema: Any) -> None:
    for name in wanted:
        found = schema.get_all_field_indices(name)
        if not found:
            choice = f"choose among {', '.join(schema.names)}" if schema.names else "nor any other"
            raise InputError(f"{file.path} has no column {name!r}: {choice}.")
        if len(found) > 1:
            raise InputError(
                f"{file.path} has {len(found)} columns {name!r}: rename all but one, or choose another column."
            )
        kind = schema.field(found[0]).type
        if not _holds_text(kind):
            texts = [field.name for field in schema if _holds_text(field.type)]
            choice = f"choose among {', '.join(texts)}" if texts else "no column of it does"
            raise InputError(f"the column {name!r} of {file.path} holds {kind}, not text: {choice}.")


def _holds_text(kind: Any) -> bool:
    from pyarrow import types

    while (inner := _inner(kind)) is not None:
        kind = inner
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return bool(is_text or is_bytes or types.is_null(kind))


def _inner(kind: Any) -> Any:
    """The type of the values of an extension, a dictionary or of runs; None for any other type."""
    import pyarrow

    if isinstance(kind, pyarrow.BaseExtensionType):
        return kind.storage_type
    if pyarrow.types.is_dictionary(kind) or pyarrow.types.is_run_end_encoded(kind):
        return kind.value_type
    return None


def _column(rows: Any, name: str) -> Any:
    return rows.column(rows.schema.get_field_index(name))


def _strings(column: Any) -> list[bytes | None]:
    """The column's values as the bytes that the file holds, which may not be UTF-8."""
    import pyarrow
    from pyarrow import compute

    while _inner(kind := column.type) is not None:
        if isinstance(kind, pyarrow.BaseExtensionType):
            column = column.storage
        elif pyarrow.types.is_dictionary(kind):
            values = column.dictionary
            if pyarrow.types.is_string_view(kind.value_type) or pyarrow.types.is_binary_view(kind.value_type):
                values = values.cast(pyarrow.large_binary())  # views cannot be taken from
            column = values.take(column.indices)
        else:
            column = compute.run_end_decode(column)
    values = column.cast(pyarrow.large_binary()).to_pylist()
    return list(values)
