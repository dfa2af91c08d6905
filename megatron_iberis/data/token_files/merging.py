"""`merge`: several token files -> one, their documents one after the other.

The ids are copied as they are; the index is written anew from the lengths, in constant memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from megatron_iberis.data.token_files.manifest import report
from megatron_iberis.data.token_files.names import token_file_prefix
from megatron_iberis.data.token_files.reader import TokenFile, is_empty
from megatron_iberis.data.token_files.writer import index_writer
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import sync_stream, write_json
from megatron_iberis.storage.hashing import blocks, hash_file
from megatron_iberis.storage.refusals import check_writable, explain
from megatron_iberis.storage.work_folder import WorkFolder

_SPLIT, _SUFFIX = "train", "_text_document"  # what a file is said to be, and how its name ends
_STALE = (
    "_text_document.json",
    ".rejects.jsonl",
    ".duplicates.jsonl",
)  # of an earlier file
_CHUNK = 1 << 20  # documents


def merge(
    prefixes: Sequence[str],
    output_prefix: str,
    progress: Callable[[int, int], None] = lambda *_: None,
    notices: list[str] | None = None,
) -> str:
    """Writes `output_prefix`_text_document.bin, .idx and .json; returns that name.

    `progress(done, size)` in bytes of the .bin. `notices` gets a sentence about files without a token, which are left
    out. InputError if the files do not go together (other tokenizers, other dtypes), one is given twice or the disk
    is full.
    """
    files = _opened(prefixes, [] if notices is None else notices)
    output = output_prefix.removesuffix(_SUFFIX) + _SUFFIX
    _check(files, output)
    for kind in "bin", "idx", "json":
        check_writable(f"{output}.{kind}")
    work = WorkFolder(output.removesuffix(_SUFFIX), {}, resume=False)
    try:
        with (work.path / "bin").open("wb") as out:
            digest = _copy(files, out, progress)
        _write_index(files, work.path / "idx")
        moves: dict[str, str | None] = dict.fromkeys(_STALE)
        if files[0].manifest is not None:
            hashes = {"bin": digest, "idx": hash_file(work.path / "idx")}
            write_json(work.path / "json", _manifest(files, hashes))
            moves[f"{_SUFFIX}.json"] = "json"
        work.publish({}, {f"{_SUFFIX}.bin": "bin", **moves, f"{_SUFFIX}.idx": "idx"})
    except OSError as error:
        raise InputError(explain(error, output)) from error
    finally:
        work.discard()
        work.close()
    return output


def _opened(prefixes: Sequence[str], notices: list[str]) -> list[TokenFile]:
    """The token files, but those in which there is nothing: other programs leave one for a task without documents."""
    names = [token_file_prefix(prefix) for prefix in prefixes]
    empty = [name for name in names if is_empty(name)]
    if empty and len(empty) < len(names):
        notices.append(
            f"nothing is in {len(empty)} of {len(names)} token files ({empty[0]}{', ...' * (len(empty) > 1)})."
        )
        names = [name for name in names if name not in empty]
    return [TokenFile(name) for name in names]


def _check(files: list[TokenFile], output: str) -> None:
    first = files[0]
    repeated = [name for name, times in Counter(file.prefix for file in files).items() if times > 1]
    if repeated:
        raise InputError(f"{repeated[0]} is given twice: name each file once, such as by its .bin alone.")
    for file in files:
        made = (file.manifest or {}).get("arguments", {})
        if made.get("shard") and (made.get("dedup") or made.get("shuffle") is not None):
            raise InputError(
                f"{file.prefix} is a shard whose duplicates are still in it or which is still to be shuffled, which "
                "merge.py does with all shards at once: give --shards and what --output-prefix was."
            )
        if Path(file.prefix).resolve() == Path(output).resolve():
            raise InputError(f"{output} is one of the files to merge: name another --output-prefix.")
        if file.dtype != first.dtype:
            raise InputError(
                f"{first.prefix} holds {first.dtype} and {file.prefix} {file.dtype}: they have other tokenizers; "
                "make one of them again with the tokenizer of the other."
            )
        if _tokenizer(file) != _tokenizer(first):
            raise InputError(
                f"{first.prefix} and {file.prefix} were not made with the same tokenizer "
                f"({_tokenizer(first)[:12]}, {_tokenizer(file)[:12]}): make one of them again."
            )


def _tokenizer(file: TokenFile) -> str:
    return str((file.manifest or {}).get("tokenizer", "not known"))


def _copy(files: list[TokenFile], out: IO[bytes], progress: Callable[[int, int], None]) -> str:
    """Copies all ids; their sha256."""
    digest = hashlib.sha256()
    size = sum(file.num_tokens * file.dtype.itemsize for file in files)
    for file in files:
        for block in blocks(file.prefix + ".bin"):
            out.write(block)
            digest.update(block)
            progress(out.tell(), size)
    sync_stream(out)
    return digest.hexdigest()


def _write_index(files: list[TokenFile], path: Path) -> None:
    with index_writer(path, files[0].dtype) as writer:
        for file in files:
            for lengths, single in _documents(file):
                (writer.add if single else writer.add_document)(lengths)


def _documents(file: TokenFile) -> Iterator[tuple[np.ndarray, bool]]:
    """(lengths of many documents of one sequence each, True), or (those of the sequences of one document, False)."""
    for first in range(0, file.num_documents, _CHUNK):
        bounds = np.array(file.document_index[first : first + _CHUNK + 1])
        lengths = file.lengths[bounds[0] : bounds[-1]].astype(np.int64)
        if (np.diff(bounds) == 1).all():
            yield lengths, True
        else:
            for document in np.split(lengths, bounds[1:-1] - bounds[0]):
                yield document, False


def _manifest(files: list[TokenFile], hashes: dict[str, str]) -> dict[str, Any]:
    manifests = [file.manifest or {} for file in files]
    counted: dict[str, Counter[str]] = {}
    for manifest in manifests:
        for path, counts in manifest.get("files", {}).items():
            counted.setdefault(path, Counter()).update({name: counts[name] for name in _COUNTS})
    total = Counter[str]()
    for manifest in manifests:
        total.update({name: manifest.get(name, 0) for name in _COUNTS})
    return {
        "split": "/".join(sorted({manifest.get("split", _SPLIT) for manifest in manifests})),
        "tokenizer": manifests[0].get("tokenizer"),
        "vocab_size": manifests[0].get("vocab_size"),
        **report(**total),
        "sha256": hashes,
        "files": {path: report(**counts) for path, counts in counted.items()},
        "merged": [
            {
                "prefix": file.prefix,
                "documents": file.num_documents,
                "tokens": file.num_tokens,
                "input": m.get("input"),
            }
            for file, m in zip(files, manifests, strict=True)
        ],
    }


_COUNTS = ("documents", "tokens", "text_tokens", "text_bytes")
