"""Preprocessing shared out among machines: what each shard leaves, and all shards -> the token files of one machine.

Shard I of N reads its part of the input (reading/parts.py) and leaves, with names that begin with PREFIX.I-of-N:

    _text_document.*, _val_text_document.*   its documents in the order of the input, if it has any, to be trained on
    .documents                               what is kept of each beside its ids (encoding.document_dtype)
    .rejects.jsonl                           what could not be used, by line of the whole file
    .shard.json                              settings, counts, sizes of the files above; there when all of them are

Which documents are duplicates and how all are shuffled is known only with all shards: `merge_shards` does that, with
the code that finishes a run on one machine, so the result is the same to the byte.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_iberis.data.token_files.reader import token_dtype
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import write_json
from megatron_iberis.storage.joined import open_joined
from megatron_iberis.storage.refusals import check_writable, explain
from megatron_iberis.storage.work_folder import WorkFolder, short
from megatron_iberis.text.config import SUFFIX, PreprocessConfig, Shard
from megatron_iberis.text.finishing import (
    DOCUMENTS,
    DUPLICATES,
    REJECTS,
    Encoded,
    described,
    finish,
    names_of,
    write_as_encoded,
)
from megatron_iberis.text.reading.inputs import InputFile
from megatron_iberis.text.resuming import plan_of
from megatron_iberis.text.summary import Summary, Vocabulary
from megatron_iberis.tokenizer import Tokenizer

_ENDING = ".shard.json"


def publish_shard(work: WorkFolder, config: PreprocessConfig, vocabulary: Vocabulary, summary: Summary) -> None:
    """Puts what a shard has encoded under its final names."""
    assert config.shard is not None
    work.append(DOCUMENTS, b"")  # a part may hold none, and then there is no file yet
    moves: dict[str, str | None] = {}
    for split, suffix in SUFFIX.items():
        if split in config.splits and summary.splits[split].documents:
            name = write_as_encoded(work, config, split, token_dtype(vocabulary.size))
            moves.update(described(work, config, vocabulary, summary, split, name))
        else:
            moves.update(dict.fromkeys(names_of(split)))
        if split in config.splits:
            summary.outputs.append(config.prefix + suffix)
    moves["." + DOCUMENTS] = DOCUMENTS
    moves["." + REJECTS] = REJECTS if (work.path / REJECTS).exists() else None
    moves["." + DUPLICATES] = None
    content = {
        "shard": str(config.shard),
        "plan": work.plan,
        "vocabulary": vocabulary,
        "arguments": {name: value for name, value in config.arguments().items() if name != "shard"},
        "sizes": {end: (work.path / name).stat().st_size for end, name in moves.items() if name is not None},
        "summary": summary.as_state(),
    }
    write_json(work.path / "shard.json", content)
    work.publish({"summary": summary.as_state()}, {**moves, _ENDING: "shard.json"})


@dataclass(frozen=True)
class _Left:
    """What a shard has left: `prefix` is what its names begin with, the rest is in .shard.json."""

    prefix: str
    shard: str
    plan: dict[str, Any]
    vocabulary: Vocabulary
    arguments: dict[str, Any]
    sizes: dict[str, int]
    summary: Summary

    @classmethod
    def load(cls, prefix: str) -> _Left:
        """InputError if anything is not as the shard has left it; FileNotFoundError if it is not there."""
        try:
            content = json.loads(Path(prefix + _ENDING).read_bytes())
            content["vocabulary"] = Vocabulary(*content["vocabulary"])
            content["summary"] = Summary.from_state(content["summary"])
            left = cls(prefix, **content)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{prefix}{_ENDING} is damaged ({error}): make this shard again.") from None
        for ending, size in left.sizes.items():
            path = Path(prefix + ending)
            if not path.exists() or path.stat().st_size != size:
                raise InputError(f"{path} is not there as shard {left.shard} left it: make this shard again.")
        return left


def finished_shard(config: PreprocessConfig, files: Sequence[InputFile], tokenizer: Tokenizer) -> Summary | None:
    """What is told of a shard that is there, if it was made with this configuration of these `files`."""
    if Path(config.prefix + ".partial").exists():
        return None
    try:
        left = _Left.load(config.prefix)
    except (FileNotFoundError, InputError):
        return None
    if left.plan != plan_of(config, tokenizer, files):
        return None
    left.summary.finished_before = True
    return left.summary


def merge_shards(
    prefix: str, output_prefix: str | None = None, progress: Callable[[int, int], None] = lambda done, size: None
) -> tuple[PreprocessConfig, Summary]:
    """All shards of `prefix` (PREFIX.I-of-N) -> the files that one machine would have made as `output_prefix`.

    Returns with which settings, and what was done. The shards stay. `progress(done, size)` is called in bytes of a
    .bin. InputError if a shard is missing or not finished, if they do not go together, another merge is at work, or
    the disk is full.
    """
    shards = _all_shards(prefix)
    first = shards[0]
    output = prefix if output_prefix is None else output_prefix
    config = PreprocessConfig(**{**first.arguments, "output_prefix": output})
    summary = Summary.from_state(first.summary.as_state())
    for shard in shards[1:]:
        summary.take_in(shard.summary)
    for split in config.splits:
        for name in names_of(split):
            check_writable(output + name)
    work = WorkFolder(output, {}, resume=False)
    try:
        _join_rejects(shards, work)
        finish(work, _encoded(shards, config), config, first.vocabulary, summary, progress)
    except OSError as error:
        raise InputError(explain(error, output)) from error
    finally:
        work.discard()
        work.close()
    return config, summary


def _all_shards(prefix: str) -> list[_Left]:
    """Every shard of `prefix`, in order, if all are there and go together."""
    folder, name = Path(prefix).parent, Path(prefix).name
    pattern = re.compile(re.escape(name) + r"\.\d+-of-(\d+)" + re.escape(_ENDING))
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    counts = sorted({int(found[1]) for file in there if (found := pattern.fullmatch(file))})
    if not counts:
        raise InputError(
            f"there are no shards {prefix}.I-of-N: make them with data_tools/preprocess.py --output-prefix {prefix} "
            "--shard I/N, or merge token files with --input."
        )
    if len(counts) > 1:
        raise InputError(
            f"{prefix} has shards of {' and of '.join(map(str, counts))}: remove the files of all but one kind."
        )
    shards = [Shard(number, counts[0]) for number in range(1, counts[0] + 1)]
    missing = []
    for shard in shards:
        own = shard.name_of(prefix)
        if Path(own + ".partial").exists():
            raise InputError(
                f"shard {shard} is not finished ({own}.partial): wait for its end, or give its command with --resume."
            )
        if not Path(own + _ENDING).exists():
            missing.append(shard)
    if missing:
        named = ", ".join(map(str, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise InputError(
            f"of the shards of {prefix}, {named} {'is' if len(missing) == 1 else 'are'} missing: "
            f"run preprocess.py with --shard {missing[0]}{' and so on' if len(missing) > 1 else ''}."
        )
    loaded = [_Left.load(shard.name_of(prefix)) for shard in shards]
    for other in loaded[1:]:
        _check_same(loaded[0], other)
    return loaded


def _check_same(first: _Left, other: _Left) -> None:
    if first.plan.get("input") != other.plan.get("input"):
        listed = [list(zip(left.summary.paths, left.summary.versions, strict=True)) for left in (first, other)]
        differing = [file for file in zip(*listed, strict=False) if file[0] != file[1]]
        where = f"from {differing[0][1][0]} on, by name, size or time of change" if differing else "in number"
        raise InputError(
            f"{first.prefix} and {other.prefix} were made of different input files ({where}): "
            "make all shards of the same files."
        )
    for name in first.plan.keys() | other.plan.keys():
        mine, its = first.plan.get(name), other.plan.get(name)
        if mine != its and name != "shard":
            raise InputError(
                f"{other.prefix} was made with another {name} than {first.prefix} ({short(its)}, not {short(mine)}): "
                "make one of them again."
            )


def _encoded(shards: Sequence[_Left], config: PreprocessConfig) -> Encoded:
    ids = {
        split: [Path(f"{left.prefix}{SUFFIX[split]}.bin") for left in shards if left.summary.splits[split].documents]
        for split in config.splits
    }
    return Encoded([Path(f"{left.prefix}.{DOCUMENTS}") for left in shards], ids, may_be_moved=False)


def _join_rejects(shards: Sequence[_Left], work: WorkFolder) -> None:
    lists = [Path(f"{left.prefix}.{REJECTS}") for left in shards if "." + REJECTS in left.sizes]
    if lists:
        with open_joined(lists) as source, (work.path / REJECTS).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
