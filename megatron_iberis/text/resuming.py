"""Where a stopped run is resumed: at the place saved last, or at the start of the file that it was reading.

* Files that were read to their end must be there again, first and unchanged. Those behind them may be others.
* The file that was being read may have been fetched again or corrected further on. Where it is left out, or emptied,
  all that came of it is taken back, so the token files are those of the input as it is now.
* What was finished, with the same input and settings, is not done again.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import json_line
from megatron_iberis.storage.work_folder import WorkFolder
from megatron_iberis.text.config import SUFFIX, PreprocessConfig
from megatron_iberis.text.reading.batch import Position
from megatron_iberis.text.reading.inputs import InputFile
from megatron_iberis.text.summary import Counts, Summary
from megatron_iberis.tokenizer import Tokenizer

_FORMAT = 2  # of plan and journal
_MAKES_NO_DIFFERENCE = ("workers", "input", "output_prefix", "tokenizer")  # the input and the tokenizer by content


def plan_of(config: PreprocessConfig, tokenizer: Tokenizer, files: Sequence[InputFile]) -> dict[str, Any]:
    """What must be the same for the bytes to be the same, beside the input; for a shard also the input.

    Which part of the input is a shard's hangs on all `files`.
    """
    plan = {name: value for name, value in config.arguments().items() if name not in _MAKES_NO_DIFFERENCE}
    del plan["on_error"]
    if config.shard is not None:
        listed = [[str(file.path), *version] for file, version in zip(files, versions_of(files), strict=True)]
        plan["input"] = hashlib.sha256(json_line(listed)).hexdigest()
    return {**plan, "tokenizer": tokenizer.fingerprint, "format": _FORMAT}


def versions_of(files: Sequence[InputFile]) -> list[list[int]]:
    """Bytes and time of change of each file, nothing for standard input."""
    return [[] if file.is_stdin else [file.size, file.path.stat().st_mtime_ns] for file in files]


@dataclass
class FileStart:
    """What had been written and counted before the file that is being read: the sizes of the work folder's files."""

    sizes: dict[str, int]
    counted: dict[str, Any]  # of Summary.as_state

    @classmethod
    def of(cls, work: WorkFolder, summary: Summary) -> FileStart:
        """`summary` is at the start of a file."""
        counted = {
            "tally": dataclasses.asdict(summary.tally),
            "splits": {name: dataclasses.asdict(counts) for name, counts in summary.splits.items()},
            "position": dataclasses.asdict(summary.position),
        }
        return cls(work.sizes(), counted)


def state_of(summary: Summary, start: FileStart) -> dict[str, Any]:
    """For the journal."""
    return {"summary": summary.as_state(), "file_start": dataclasses.asdict(start)}


def restored(state: dict[str, Any], files: Sequence[InputFile], work: WorkFolder) -> tuple[Summary, FileStart]:
    """What a stopped run had done of the input `files`, which `work` holds then."""
    summary = Summary.from_state(state["summary"])
    paths, versions = [str(file.path) for file in files], versions_of(files)
    if summary.outputs:
        if paths != summary.paths:
            raise InputError(f"{work.path} is the end of a run of other input: start again without --resume.")
        return summary, FileStart({}, {})
    read = summary.position.file
    for number in range(read):
        path = summary.paths[number]
        if paths[number : number + 1] != [path]:
            raise InputError(
                f"{path} was read before the stop, but is not number {number + 1} of the input any more: "
                "give it again, or start again without --resume."
            )
        if versions[number] != summary.versions[number]:
            raise InputError(f"{path} was changed since it was read: start again without --resume.")
    start = FileStart(**state["file_start"])
    following = files[read] if read < len(files) else None
    if summary.position != Position(read) and (
        following is None or str(following.path) != summary.paths[read] or not (following.size or following.is_stdin)
    ):
        state = copy.deepcopy(state)
        state["summary"].update(start.counted)
        state["summary"]["files"][read] = dataclasses.asdict(Counts())
        work.rewind(start.sizes, state)
        summary = Summary.from_state(state["summary"])
    counts = [*summary.files, *(Counts() for _ in files)]
    summary.paths, summary.files, summary.versions = paths, counts[: len(files)], versions
    return summary, start


def finished(config: PreprocessConfig, files: Sequence[InputFile], tokenizer: Tokenizer) -> Summary | None:
    """What is told of the token files that are there, if they were made with this configuration of these `files`."""
    outputs = [config.output_prefix + SUFFIX[split] for split in config.splits]
    if Path(config.output_prefix + ".partial").exists() or not all(Path(p + ".idx").exists() for p in outputs):
        return None
    try:
        opened = [TokenFile(prefix) for prefix in outputs]
        manifests = [file.manifest or {} for file in opened]
    except InputError:  # damaged
        return None
    versions = {str(file.path): version for file, version in zip(files, versions_of(files), strict=True)}
    arguments = config.arguments()
    for file, manifest in zip(opened, manifests, strict=True):
        made = manifest.get("arguments", {})
        same = all(made.get(name) == arguments[name] for name in arguments if name not in _MAKES_NO_DIFFERENCE)
        made_of = {path: counts.get("version") for path, counts in manifest.get("files", {}).items()}
        if not (
            same
            and manifest.get("tokenizer") == tokenizer.fingerprint
            and list(made_of.items()) == list(versions.items())
            and all(versions.values())
            and manifest.get("documents") == file.num_documents
        ):
            return None
    return Summary.from_manifests(dict(zip(config.splits, manifests, strict=True)), outputs)
