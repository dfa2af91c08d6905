"""Text files -> token files: `PREFIX_text_document.bin/.idx/.json`, and `PREFIX_val_text_document.*` on request.

This process reads and writes, worker processes parse and encode (encoding.py). Documents keep the order of the input,
so the output's bytes do not depend on the number of workers. All is written to a work folder (work_folder.py), from
which a stopped run can go on; finishing.py makes token files of it. Nothing has a final name before all is written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import json_line
from megatron_iberis.storage.refusals import check_writable, explain, is_full
from megatron_iberis.storage.work_folder import WorkFolder, has_journal, short
from megatron_iberis.text.config import STOP, SUFFIX, PreprocessConfig
from megatron_iberis.text.encoding import BatchEncoder, EncodedBatch
from megatron_iberis.text.finishing import DOCUMENTS, REJECTS, ids_name, publish, remove_duplicates
from megatron_iberis.text.ordering.similarity import check_installed
from megatron_iberis.text.processes.workers import map_ordered
from megatron_iberis.text.reading.inputs import InputFile, find_inputs
from megatron_iberis.text.reading.readers import read_batches
from megatron_iberis.text.reading.records import EMPTY
from megatron_iberis.text.summary import Summary
from megatron_iberis.tokenizer import Tokenizer

SAVE_SECONDS = 5.0  # of work that a killed run loses, at most

Progress = Callable[[int, int, int], None]


def preprocess(config: PreprocessConfig, progress: Progress = lambda read, size, text_bytes: None) -> Summary:
    """Does it all; returns what was done.

    `progress(read, size, text_bytes)` is called after each batch: bytes read of the input files, their sum, and bytes
    of text encoded. InputError with the fix for bad input, settings that make no sense, a full disk or a worker that
    died; what was done till then is kept for `config.resume` where that can be of use.
    """
    config.check()
    check_installed(config.dedup)
    notices: list[str] = []
    files = find_inputs(config.input, notices)
    tokenizer = Tokenizer.load(config.tokenizer)
    for split in config.splits:
        for kind in "bin", "idx", "json":
            check_writable(f"{config.output_prefix}{SUFFIX[split]}.{kind}")
    work = WorkFolder(config.output_prefix, _plan(config, files, tokenizer), config.resume)
    try:
        summary = _run(config, files, tokenizer, work, progress)
        summary.notices = notices
        return summary
    except OSError as error:
        if is_full(error):
            remedy = "free space, then give the same command with --resume"
            raise InputError(explain(error, work.path, remedy)) from error
        raise InputError(
            f"{error.strerror}: {error.filename or work.path}" if error.strerror else str(error)
        ) from error
    except ValueError as error:
        if work.state is None:
            raise
        raise InputError(f"{error} What was done is kept: --resume goes on from there.") from error
    finally:
        work.close()


def finished(config: PreprocessConfig) -> list[str]:
    """The token files, if an earlier run has made them to the end and --resume has nothing to go on with; else [].

    InputError if they were made otherwise than `config` says, of other input, or are damaged.
    """
    prefixes = [config.output_prefix + SUFFIX[split] for split in config.splits]
    names = [Path(prefix + kind) for prefix in prefixes for kind in (".bin", ".idx", ".json")]
    if not config.resume or has_journal(config.output_prefix) or not all(name.exists() for name in names):
        return []
    config.check()
    files = find_inputs(config.input, [])
    for prefix in prefixes:
        manifest = TokenFile(prefix).manifest or {}
        made = {**manifest.get("arguments", {}), "tokenizer": manifest.get("tokenizer")}
        made["input"] = list(manifest.get("files", []))
        for name, value in _plan(config, files, Tokenizer.load(config.tokenizer)).items():
            wanted = list(dict.fromkeys(value)) if name == "input" else value
            if made.get(name) != wanted:
                raise InputError(
                    f"{prefix} is finished, but was made with another {name} ({short(made.get(name))}, not "
                    f"{short(wanted)}): give the same again, or start again without --resume."
                )
        for file in files:
            if not file.is_stdin and file.path.stat().st_mtime_ns > os.stat(prefix + ".json").st_mtime_ns:
                raise InputError(f"{file.path} was changed since it was read: start again without --resume.")
    return prefixes


def _run(
    config: PreprocessConfig, files: list[InputFile], tokenizer: Tokenizer, work: WorkFolder, progress: Progress
) -> Summary:
    if work.state is None:
        summary = Summary.of([str(file.path) for file in files], config.splits)
    else:
        summary = _restored(work.state, files)
    if not summary.outputs:
        _encode(config, files, tokenizer, work, summary, progress)
        if config.dedup is not None:
            remove_duplicates(work, config, summary)
        try:
            summary.check(config)
        except ValueError:
            work.discard()
            raise
        summary.outputs = [config.output_prefix + SUFFIX[split] for split in config.splits]
        publish(work, config, tokenizer, summary)
    work.discard()
    return summary


def _encode(
    config: PreprocessConfig,
    files: list[InputFile],
    tokenizer: Tokenizer,
    work: WorkFolder,
    summary: Summary,
    progress: Progress,
) -> None:
    """Reads the input to its end, into the work folder."""
    size = sum(file.size for file in files)
    versions = [_version(file) for file in files]
    saved = time.monotonic()
    batches = read_batches(files, config.json_key, config.split_key, summary.position)
    text_bytes = 0  # of this run, for its speed
    for batch in map_ordered(partial(BatchEncoder, config, tokenizer), batches, config.workers):
        _write(batch, config, work)
        summary.add(batch)
        text_bytes += int(batch.documents["bytes"].sum())
        if time.monotonic() - saved > SAVE_SECONDS:
            work.save({"summary": summary.as_state(), "versions": versions})
            saved = time.monotonic()
        progress(batch.bytes_read, size, text_bytes)
    work.save({"summary": summary.as_state(), "versions": versions})


def _write(batch: EncodedBatch, config: PreprocessConfig, work: WorkFolder) -> None:
    faults = [reject for reject in batch.rejects if reject.kind != EMPTY]
    if faults and config.on_error == STOP:
        place, kind = faults[0].place, faults[0].kind
        raise InputError(f"{kind}: {place}: correct it, or skip what is wrong with --on-error skip.")
    for split, ids in zip(config.splits, batch.ids, strict=False):
        work.append(ids_name(split), ids)
    work.append(DOCUMENTS, batch.documents.tobytes())
    for reject in batch.rejects:
        work.append(REJECTS, json_line(reject.as_json()))


def _plan(config: PreprocessConfig, files: list[InputFile], tokenizer: Tokenizer) -> dict[str, Any]:
    """What must be the same for the bytes to be the same."""
    plan = config.arguments()
    for name in "workers", "input", "output_prefix", "on_error":
        del plan[name]
    return {**plan, "tokenizer": tokenizer.fingerprint, "input": [str(file.path) for file in files]}


def _version(file: InputFile) -> list[int]:
    return [] if file.is_stdin else [file.size, file.path.stat().st_mtime_ns]


def _restored(state: dict[str, Any], files: list[InputFile]) -> Summary:
    """What a stopped run had done. Files that it had read to the end must not have changed since.

    The file that it was reading may have: fetched again because it was damaged, or corrected further on.
    """
    summary = Summary.from_state(state["summary"])
    if summary.outputs:
        return summary
    for file, version in list(zip(files, state["versions"], strict=True))[: summary.position.file]:
        if _version(file) != version:
            raise InputError(f"{file.path} was changed since it was read: start again without --resume.")
    return summary
