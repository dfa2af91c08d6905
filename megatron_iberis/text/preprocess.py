"""Text files -> token files: `PREFIX_text_document.bin/.idx/.json`, and `PREFIX_val_text_document.*` on request.

This process reads and writes, worker processes parse and encode (encoding.py). Documents keep the order of the input,
so the output's bytes do not depend on the number of workers. All is written to a work folder (work_folder.py), from
which a stopped run is resumed (resuming.py); finishing.py makes token files of it, or of what several shards have
written (sharding.py). Nothing has a final name before all is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from megatron_iberis.errors import InputError
from megatron_iberis.processes.workers import map_ordered
from megatron_iberis.storage.atomic import json_line
from megatron_iberis.storage.refusals import check_writable, explain, is_full
from megatron_iberis.storage.work_folder import WorkFolder
from megatron_iberis.text.config import SKIP, SKIP_RECORDS, STOP, SUFFIX, PreprocessConfig, Shard
from megatron_iberis.text.encoding import BatchEncoder, EncodedBatch
from megatron_iberis.text.finishing import DOCUMENTS, REJECTS, Encoded, finish, ids_name
from megatron_iberis.text.ordering.similarity import check_installed
from megatron_iberis.text.reading.batch import Position
from megatron_iberis.text.reading.inputs import describe_empty, find_inputs
from megatron_iberis.text.reading.parts import Part, part_of
from megatron_iberis.text.reading.readers import read_batches
from megatron_iberis.text.reading.records import EMPTY
from megatron_iberis.text.reading.unreadable import UnreadableFileError
from megatron_iberis.text.resuming import FileStart, finished, plan_of, restored, state_of, versions_of
from megatron_iberis.text.sharding import finished_shard, publish_shard
from megatron_iberis.text.summary import Summary, Vocabulary
from megatron_iberis.tokenizer import Tokenizer

SAVE_SECONDS = 5.0  # of work that a killed run loses, at most

Progress = Callable[[int, int, int], None]


def preprocess(config: PreprocessConfig, progress: Progress = lambda read, size, text_bytes: None) -> Summary:
    """Does it all; returns what was done.

    With `config.shard` that is the part of the input that falls to this shard, as files for text/sharding.py.
    `progress(read, size, text_bytes)` is called after each batch: bytes read of the input files, their sum, and bytes
    of text encoded. InputError with the fix for bad input, settings that make no sense, a full disk or a worker that
    died; what was done till then is kept for `config.resume` where that can be of use.
    """
    config.check()
    check_installed(config.dedup)
    notices: list[str] = []
    files = find_inputs(config.input, notices)
    tokenizer = Tokenizer.load(config.tokenizer)
    find_finished = finished if config.shard is None else finished_shard
    if config.resume and (done := find_finished(config, files, tokenizer)):
        names = ", ".join(done.outputs)
        done.notices = [*notices, f"{names}: finished before with the same input and settings, nothing was done."]
        return done
    for split in config.splits:
        for kind in "bin", "idx", "json":
            check_writable(f"{config.prefix}{SUFFIX[split]}.{kind}")
    shard = config.shard or Shard(1, 1)
    part = part_of(files, shard.number, shard.count)
    work = WorkFolder(config.prefix, plan_of(config, tokenizer, files), config.resume)
    empty: list[Path] = []
    try:
        summary = _run(config, part, tokenizer, work, progress, empty)
        summary.notices = [*notices, *describe_empty(empty)]
        return summary
    except OSError as error:
        if is_full(error):
            remedy = "free space, then give the same command with --resume"
            raise InputError(explain(error, work.path, remedy)) from error
        what = f"{error.strerror}: {error.filename or work.path}" if error.strerror else str(error)
        raise InputError(what) from error
    except InputError as error:
        if work.state is None:
            raise
        without = " (with --on-error skip, without it)" if isinstance(error, UnreadableFileError) else ""
        raise InputError(f"{error} What was done is kept: --resume continues from there{without}.") from error
    finally:
        work.close()


def _run(
    config: PreprocessConfig,
    part: Part,
    tokenizer: Tokenizer,
    work: WorkFolder,
    progress: Progress,
    empty: list[Path],
) -> Summary:
    if work.state is None:
        files = part.files
        summary = Summary.of([str(file.path) for file in files], versions_of(files), config.splits)
        summary.position = part.numbered_start()
        start = FileStart.of(work, summary)
    else:
        summary, start = restored(work.state, part.files, work)
    if not summary.outputs:
        _encode(config, part, tokenizer, work, summary, start, progress, empty)
        vocabulary = Vocabulary(tokenizer.fingerprint, tokenizer.vocab_size)
        if config.shard is None:
            finish(work, Encoded.in_work(work, config), config, vocabulary, summary)
        else:
            publish_shard(work, config, vocabulary, summary)
    work.discard()
    return summary


def _encode(
    config: PreprocessConfig,
    part: Part,
    tokenizer: Tokenizer,
    work: WorkFolder,
    summary: Summary,
    start: FileStart,
    progress: Progress,
    empty: list[Path],
) -> None:
    """Reads the part of the input to its end, into the work folder."""
    saved = time.monotonic()
    skip = config.on_error == SKIP
    batches = read_batches(part.files, config.json_key, config.split_key, summary.position, skip, empty, part.stop)
    text_bytes = 0  # of this run, for its speed
    try:
        for batch in map_ordered(partial(BatchEncoder, config, tokenizer), batches, config.workers):
            _write(batch, config, work)
            file = summary.position.file
            summary.add(batch)
            if summary.position.file != file:
                start = FileStart.of(work, summary)
            text_bytes += int(batch.documents["bytes"].sum())
            if time.monotonic() - saved > SAVE_SECONDS:
                work.save(state_of(summary, start))
                saved = time.monotonic()
            progress(batch.bytes_read - part.before, part.size, text_bytes)
    except UnreadableFileError:
        if summary.position != Position():
            work.save(state_of(summary, start))
        raise
    work.save(state_of(summary, start))


def _write(batch: EncodedBatch, config: PreprocessConfig, work: WorkFolder) -> None:
    faults = [reject for reject in batch.rejects if reject.kind != EMPTY]
    if faults and config.on_error == STOP:
        place, kind = faults[0].place, faults[0].kind
        raise InputError(f"{kind}: {place}: correct it, or skip what is wrong with --on-error {SKIP_RECORDS}.")
    for split, ids in zip(config.splits, batch.ids, strict=False):
        work.append(ids_name(split), ids)
    work.append(DOCUMENTS, batch.documents.tobytes())
    for reject in batch.rejects:
        work.append(REJECTS, json_line(reject.as_json()))
