"""The end of preprocessing: what the work folder holds -> token files, without duplicates, shuffled, with manifests.

It can be done again from the start at any time, as it changes none of the files that it reads; the last step, giving
the files their names, is the work folder's (work_folder.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from megatron_iberis.data.token_files.reader import token_dtype
from megatron_iberis.data.token_files.writer import index_writer
from megatron_iberis.storage.atomic import json_line, sync_stream, write_json
from megatron_iberis.storage.hashing import hash_file
from megatron_iberis.storage.work_folder import WorkFolder
from megatron_iberis.text.config import SUFFIX, PreprocessConfig
from megatron_iberis.text.encoding import document_dtype
from megatron_iberis.text.ordering.duplicates import PAIR, documents_of, find_duplicates
from megatron_iberis.text.ordering.shuffling import Piece, shuffle
from megatron_iberis.text.summary import Summary
from megatron_iberis.tokenizer import Tokenizer

DOCUMENTS, REJECTS, DUPLICATES = "documents", "rejects.jsonl", "duplicates.jsonl"
_KEPT = "kept"  # a _MARK for every document
_MARK = np.dtype([("tokens", "<u4"), ("split", "u1")])
_REMOVED = np.uint8(128)  # added to the split of a duplicate
_PIECE = 8 << 20  # bytes of documents copied at once, about


def ids_name(split: str) -> str:
    """The file of the work folder that the ids of `split` are appended to."""
    return f"{split}.bin"


def remove_duplicates(work: WorkFolder, config: PreprocessConfig, summary: Summary) -> None:
    """Marks them, lists them in DUPLICATES and takes them out of the summary."""
    dtype = document_dtype(config.dedup)
    path = work.path / DOCUMENTS
    pairs = _by_chunk(find_duplicates(path, dtype, work.path), documents_of(path, dtype))
    paths = summary.paths
    with (
        (work.path / _KEPT).open("wb") as kept,
        (work.path / DUPLICATES).open("wb") as report,
        path.open("rb") as random_access,
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


def publish(work: WorkFolder, config: PreprocessConfig, tokenizer: Tokenizer, summary: Summary) -> None:
    """Completes the token file of every split and puts all files under their final names."""
    id_type = token_dtype(tokenizer.vocab_size)
    moves: dict[str, str | None] = {}
    for split in config.splits:
        name = _write_split(work, config, summary, split, id_type)
        index = f"{split}.idx"
        hashes = {kind: hash_file(work.path / file) for kind, file in (("bin", name), ("idx", index))}
        write_json(work.path / f"{split}.json", summary.manifest(config, tokenizer, split, hashes))
        files = {".bin": name, ".json": f"{split}.json", ".idx": index}
        moves.update({SUFFIX[split] + suffix: file for suffix, file in files.items()})
    for split in SUFFIX.keys() - set(config.splits):
        if _is_of(config.output_prefix + SUFFIX[split], split):  # the other side of an earlier run's split
            moves.update({f"{SUFFIX[split]}.{kind}": None for kind in ("bin", "json", "idx")})
    for name in (REJECTS, DUPLICATES):
        moves["." + name] = name if (work.path / name).exists() else None
    work.publish({"summary": summary.as_state()}, moves)


def _is_of(prefix: str, split: str) -> bool:
    """Whether the token file was made as the `split` of a run, not as a file of its own that bears such a name."""
    try:
        return bool(json.loads(Path(prefix + ".json").read_bytes())["split"] == split)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_split(
    work: WorkFolder, config: PreprocessConfig, summary: Summary, split: str, id_type: np.dtype[Any]
) -> str:
    """Writes the .idx and, where documents are left out or change places, the .bin; the name of the .bin."""
    number = config.splits.index(split)
    removing, name = config.dedup is not None, ids_name(split)
    documents = work.path / (_KEPT if removing else DOCUMENTS)
    dtype = _MARK if removing else document_dtype(None)
    if not removing and config.shuffle is None:
        lengths = (chunk["tokens"][chunk["split"] == number] for chunk in documents_of(documents, dtype))
        _write_index(work.path / f"{split}.idx", lengths, id_type)
        return name
    pieces = _pieces(work.path / name, documents_of(documents, dtype), number, id_type.itemsize)
    if config.shuffle is not None:
        pieces = shuffle(pieces, summary.splits[split].documents, config.shuffle, work.path, id_type.itemsize)
    final = f"{split}.final.bin"
    with (work.path / final).open("wb") as ids:
        _write_index(work.path / f"{split}.idx", _copied(pieces, ids), id_type)
    return final


def _pieces(path: Path, chunks: Iterable[np.ndarray], number: int, itemsize: int) -> Iterator[Piece]:
    """The documents of split `number` that stay, out of the file with the ids of that split."""
    with path.open("rb") as file:
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


def _copied(pieces: Iterable[Piece], file: IO[bytes]) -> Iterator[np.ndarray]:
    """Writes the ids of `pieces` and passes the lengths on."""
    for lengths, ids in pieces:
        file.write(ids)
        yield lengths
    sync_stream(file)


def _write_index(path: Path, lengths: Iterable[np.ndarray], dtype: np.dtype[Any]) -> None:
    """Writes a .idx of documents of one sequence each, of these lengths in tokens; on the disk when this returns."""
    with index_writer(path, dtype) as writer:
        for chunk in lengths:
            writer.add(chunk.astype(np.int64))
