"""Files -> batches of raw records, in constant memory: cheap enough that one process reads for many workers.

* Streams of bytes are read in streams.py, rows and columns in tables.py. What is in a record is looked at in
  records.py, by the workers.
* Reading can begin at the end of any batch (`Position`): how a run goes on where another was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from megatron_iberis.text.reading.batch import Position, RawBatch
from megatron_iberis.text.reading.inputs import TABLES, InputFile
from megatron_iberis.text.reading.streams import read_stream
from megatron_iberis.text.reading.tables import read_table


def read_batches(
    files: Sequence[InputFile], json_key: str, split_key: str | None = None, start: Position | None = None
) -> Iterator[RawBatch]:
    """All batches of all files from `start` on. `json_key` and `split_key` name columns (and JSON keys later).

    InputError naming a file that is damaged or cut off.
    """
    start = start or Position()
    before = sum(file.size for file in files[: start.file])
    for number, file in enumerate(files[start.file :], start.file):
        place = start if number == start.file else Position(number)
        if file.form in TABLES:
            yield from read_table(file, json_key, split_key, place, before)
        else:
            yield from read_stream(file, place, before)
        before += file.size
