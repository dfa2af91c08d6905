"""Files -> batches of raw records, in constant memory: cheap enough that one process reads for many workers.

* Streams of bytes are read in streams.py, rows and columns in tables.py. What is in a record is looked at in
  records.py, by the workers.
* Reading can begin at the end of any batch (`Position`): so a stopped run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_iberis.text.reading.batch import Position, RawBatch
from megatron_iberis.text.reading.inputs import TABLES, InputFile
from megatron_iberis.text.reading.streams import read_stream
from megatron_iberis.text.reading.tables import read_table
from megatron_iberis.text.reading.unreadable import UnreadableFileError


def read_batches(
    files: Sequence[InputFile],
    json_key: str,
    split_key: str | None = None,
    start: Position | None = None,
    skip_unreadable: bool = False,
    empty: list[Path] | None = None,
    stop: Position | None = None,
) -> Iterator[RawBatch]:
    """All batches of all files from `start` to before `stop`. `json_key` and `split_key` name columns (and JSON keys
    later).

    UnreadableFileError naming a file that is damaged or cut off; with `skip_unreadable` a batch with that `fault`
    stands for the rest of it. `empty` gets the files that hold nothing, of whatever size.
    """
    start, stop = start or Position(), stop or Position(len(files))
    before = sum(file.size for file in files[: start.file])
    for number, file in enumerate(files[start.file : stop.file + bool(stop.offset)], start.file):
        place = start if number == start.file else Position(number)
        cut = stop.offset if number == stop.file else None
        nothing, end = place == Position(number) and cut is None, place
        try:
            for batch in _batches_of(file, json_key, split_key, place, before, cut):
                nothing, end = nothing and batch.is_empty, batch.end
                yield batch
        except UnreadableFileError as error:
            if not skip_unreadable:
                raise
            nothing, after = False, Position(number + 1)
            yield RawBatch(str(file.path), file.form, end, after, before + file.size, None, fault=error.what)
        if nothing and empty is not None:
            empty.append(file.path)
        before += file.size


def _batches_of(
    file: InputFile, json_key: str, split_key: str | None, start: Position, before: int, stop: int | None
) -> Iterator[RawBatch]:
    if file.form in TABLES:
        return read_table(file, json_key, split_key, start, before)
    return read_stream(file, start, before, stop)
