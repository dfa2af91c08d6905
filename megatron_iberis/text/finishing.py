"""The end of preprocessing: what was encoded -> token files, without duplicates, shuffled, with manifests.

What one run has encoded lies in its work folder, what several shards have encoded where each was told to put it:
`Encoded` says where, and from there on all is the same. It can be done again from the start at any time, as it
changes none of the files that it reads; the last step, giving the files their names, is the work folder's
(work_folder.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from megatron_iberis.data.token_files.reader import token_dtype
from megatron_iberis.data.token_files.writer import index_writer
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import json_line, sync_stream, write_json
from megatron_iberis.storage.hashing import hash_file
from megatron_iberis.storage.joined import open_joined
from megatron_iberis.storage.work_folder import WorkFolder
from megatron_iberis.text.config import SUFFIX, PreprocessConfig
from megatron_iberis.text.encoding import document_dtype
from megatron_iberis.text.ordering.duplicates import PAIR, documents_of, find_duplicates
from megatron_iberis.text.ordering.shuffling import Piece, shuffle
from megatron_iberis.text.summary import Summary, Vocabulary

DOCUMENTS, REJECTS, DUPLICATES = "documents", "rejects.jsonl", "duplicates.jsonl"
_KEPT = "kept"  # a _MARK for every document
_MARK = np.dtype([("tokens", "<u4"), ("split", "u1")])
_REMOVED = np.uint8(128)  # added to the split of a duplicate
_PIECE = 8 << 20  # bytes of documents copied at once, about


def ids_name(split: str) -> str:
    """The file of the work folder that the ids of `split` are appended to."""
    return f"{split}.bin"


@dataclass(frozen=True)
class Encoded:
    """Where documents (encoding.document_dtype) and, by split, their ids lie: several files stand for one."""

    documents: Sequence[Path]
    ids: Mapping[str, Sequence[Path]]
    may_be_moved: bool  # so that nothing need be copied that stays as it is

    @classmethod
    def in_work(cls, work: WorkFolder, config: PreprocessConfig) -> Encoded:
        """What a run has written to its work folder."""
        ids = {split: [work.path / ids_name(split)] for split in config.splits}
        return cls([work.path / DOCUMENTS], ids, may_be_moved=True)


def finish(
    work: WorkFolder,
    encoded: Encoded,
    config: PreprocessConfig,
    vocabulary: Vocabulary,
    summary: Summary,
    progress: Callable[[int, int], None] = lambda done, size: None,
) -> None:
    """Writes the files of `config` by way of `work`, whose REJECTS are the whole list.

    `progress(done, size)` is called in bytes of a .bin. InputError if a split comes out empty; there is nothing to
    resume then.
    """
    if config.dedup is not None:
        _remove_duplicates(work, encoded, config, summary)
    try:
        summary.check(config)
    except InputError:
        work.discard()
        raise
    summary.outputs = [config.output_prefix + SUFFIX[split] for split in config.splits]
    moves: dict[str, str | None] = {}
    for split in config.splits:
        name = _write_split(work, encoded, config, summary, split, token_dtype(vocabulary.size), progress)
        moves.update(described(work, config, vocabulary, summary, split, name))
    for split in SUFFIX.keys() - set(config.splits):
        if _is_of(config.output_prefix + SUFFIX[split], split):  # the other side of an earlier run's split
            moves.update(dict.fromkeys(names_of(split)))
    for name in (REJECTS, DUPLICATES):
        moves["." + name] = name if (work.path / name).exists() else None
    work.publish({"summary": summary.as_state()}, moves)


def described(
    work: WorkFolder, config: PreprocessConfig, vocabulary: Vocabulary, summary: Summary, split: str, ids: str
) -> dict[str, str]:
    """Writes the manifest of a split whose .bin is the file `ids`; what is to bear which name."""
    files = {"bin": ids, "json": f"{split}.json", "idx": f"{split}.idx"}
    hashes = {kind: hash_file(work.path / files[kind]) for kind in ("bin", "idx")}
    write_json(work.path / files["json"], summary.manifest(config, vocabulary, split, hashes))
    return dict(zip(names_of(split), files.values(), strict=True))


def names_of(split: str) -> list[str]:
    """How the names of a token file end, its index last."""
    return [f"{SUFFIX[split]}.{kind}" for kind in ("bin", "json", "idx")]


def _remove_duplicates(work: WorkFolder, encoded: Encoded, config: PreprocessConfig, summary: Summary) -> None:
    """Marks them, lists them in DUPLICATES and takes them out of the summary."""
    dtype, stored = document_dtype(config.dedup), encoded.documents
    pairs = _by_chunk(find_duplicates(stored, dtype, work.path), documents_of(stored, dtype))
    paths = summary.paths
    with (
        (work.path / _KEPT).open("wb") as kept,
        (work.path / DUPLICATES).open("wb") as report,
        open_joined(stored) as random_access,
    ):
        for first, chunk, found in pairs:
            marks = np.empty(len(chunk), _MARK)
            marks["tokens"], marks["split"] = chunk["tokens"], chunk["split"]
            removed = (found["by"] - np.uint64(first)).astype(np.int64)
            marks["split"][removed] += _REMOVED
            kept.write(marks.tobytes())
            summary.remove(chunk[removed])
            for document, stays in zip(chunk[removed], found["first"].tolist(), strict=True):
                random_access.seek(stays * dtype.itemsize)
                original = np.frombuffer(random_access.read(dtype.itemsize), dtype)[0]
                line = {**_place(document, paths), "duplicate_of": _place(original, paths)}
                report.write(json_line(line))


def _by_chunk(
    pairs: Iterable[np.ndarray], chunks: Iterable[np.ndarray]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(number of the first document, documents, the PAIRs of duplicates among them)."""
    waiting = np.empty(0, PAIR)
    pairs, first = iter(pairs), 0
    for chunk in chunks:
        end = first + len(chunk)
        held = [waiting]
        while len(held[-1]) == 0 or held[-1]["by"][-1] < end:
            if (more := next(pairs, None)) is None:
                break
            held.append(more)
        waiting = np.concatenate(held)
        inside = int(np.searchsorted(waiting["by"], np.uint64(end)))
        yield first, chunk, waiting[:inside]
        waiting, first = waiting[inside:], end


def _place(document: Any, paths: list[str]) -> dict[str, Any]:
    return {"file": paths[document["file"]], "line": int(document["line"])}


def _is_of(prefix: str, split: str) -> bool:
    """Whether the token file was made as the `split` of a run, not as a file of its own that bears such a name."""
    try:
        return bool(json.loads(Path(prefix + ".json").read_bytes())["split"] == split)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_split(
    work: WorkFolder,
    encoded: Encoded,
    config: PreprocessConfig,
    summary: Summary,
    split: str,
    id_type: np.dtype[Any],
    progress: Callable[[int, int], None],
) -> str:
    """Writes the .idx and, where documents are left out, moved or lie in several files, the .bin; the .bin's name."""
    removing = config.dedup is not None
    if not removing and config.shuffle is None and encoded.may_be_moved:
        return write_as_encoded(work, config, split, id_type)
    documents = [work.path / _KEPT] if removing else encoded.documents
    chunks = documents_of(documents, _MARK if removing else document_dtype(None))
    pieces = _pieces(encoded.ids[split], chunks, config.splits.index(split), id_type.itemsize)
    counts = summary.splits[split]
    if config.shuffle is not None:
        pieces = shuffle(pieces, counts.documents, config.shuffle, work.path, id_type.itemsize)
    final = f"{split}.final.bin"
    with (work.path / final).open("wb") as ids:
        lengths = _copied(pieces, ids, counts.tokens * id_type.itemsize, progress)
        _write_index(work.path / f"{split}.idx", lengths, id_type)
    return final


def write_as_encoded(work: WorkFolder, config: PreprocessConfig, split: str, id_type: np.dtype[Any]) -> str:
    """Writes the .idx of the ids in the work folder as they are; the name of their file."""
    number = config.splits.index(split)
    documents = documents_of([work.path / DOCUMENTS], document_dtype(config.dedup))
    lengths = (chunk["tokens"][chunk["split"] == number] for chunk in documents)
    _write_index(work.path / f"{split}.idx", lengths, id_type)
    return ids_name(split)


def _pieces(paths: Sequence[Path], chunks: Iterable[np.ndarray], number: int, itemsize: int) -> Iterator[Piece]:
    """The documents of split `number` that stay, out of the files with the ids of that split."""
    with open_joined(paths) as file:
        for chunk in chunks:
            stored = chunk[chunk["split"] & ~_REMOVED == number]
            sizes = stored["tokens"].astype(np.int64) * itemsize
            cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _PIECE)) + 1
            for documents, part in zip(np.split(stored, cuts), np.split(sizes, cuts), strict=True):
                ids = memoryview(file.read(int(part.sum())))
                stays = documents["split"] == number
                ends = np.cumsum(part)
                runs = zip((ends - part)[stays].tolist(), ends[stays].tolist(), strict=True)
                yield documents["tokens"][stays], b"".join([ids[start:end] for start, end in runs])


def _copied(
    pieces: Iterable[Piece], file: IO[bytes], size: int, progress: Callable[[int, int], None]
) -> Iterator[np.ndarray]:
    """Writes the ids of `pieces`, `size` bytes in all, and passes the lengths on."""
    for lengths, ids in pieces:
        file.write(ids)
        progress(file.tell(), size)
        yield lengths
    sync_stream(file)


def _write_index(path: Path, lengths: Iterable[np.ndarray], dtype: np.dtype[Any]) -> None:
    """Writes a .idx of documents of one sequence each, of these lengths in tokens; on the disk when this returns."""
    with index_writer(path, dtype) as writer:
        for chunk in lengths:
            writer.add(chunk.astype(np.int64))
