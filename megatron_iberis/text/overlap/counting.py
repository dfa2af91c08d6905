"""Rows and documents, source by source, looked through for evaluation items; memory holds one batch of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from megatron_iberis.data.conversations import Conversation
from megatron_iberis.text.overlap.items import EvaluationItems, Item
from megatron_iberis.text.overlap.near_copies import NearCopies
from megatron_iberis.text.reading.inputs import InputFile
from megatron_iberis.text.reading.readers import read_batches
from megatron_iberis.text.reading.records import Document, Tally, parse
from megatron_iberis.tokenizer.chat import text_of

_BATCH = 1 << 20  # characters


class Line(NamedTuple):
    """A row or a document: where it stands, its texts, and itself as a line of JSON."""

    where: str
    texts: Sequence[str]
    record: bytes


class Overlap(NamedTuple):
    """A line, an item that it holds, how ("runs" or "near copy"), and the run, or the text that is a near copy."""

    line: Line
    item: Item
    how: str
    shared: str


@dataclass
class SetCount:
    """Of a source and a set: lines that hold items of it, and which these are, by number."""

    lines: int = 0
    items: set[int] = field(default_factory=set)


@dataclass
class SourceCount:
    """Of a source: lines read, lines that hold an item of any set, and those of them that near copies alone tell."""

    lines: int = 0
    held: int = 0
    near_only: int = 0
    sets: dict[str, SetCount] = field(default_factory=dict)


def count_overlaps(
    lines: Iterable[Line],
    items: EvaluationItems,
    near: NearCopies | None,
    found: Callable[[Overlap], None] = lambda overlap: None,
    clean: Callable[[Line], None] = lambda line: None,
) -> SourceCount:
    """Looks through a source. found: called with every item in every line; clean: with every line without any."""
    count = SourceCount()
    for batch in _batches(lines):
        line_of = [number for number, line in enumerate(batch) for _ in line.texts]
        texts = [text for line in batch for text in line.texts]
        by_line: dict[int, dict[int, tuple[str, str]]] = {}
        for text, item, shared in items.find(texts):
            by_line.setdefault(line_of[text], {}).setdefault(item, ("runs", shared))
        for text, item, shared in near.find(texts) if near else ():
            by_line.setdefault(line_of[text], {}).setdefault(item, ("near copy", shared))
        for number, line in enumerate(batch):
            held = by_line.get(number, {})
            _add(count, held, items)
            for item, (how, shared) in held.items():
                found(Overlap(line, items.items[item], how, shared))
            if not held:
                clean(line)
    return count


def _add(count: SourceCount, held: dict[int, tuple[str, str]], items: EvaluationItems) -> None:
    count.lines += 1
    count.held += bool(held)
    count.near_only += bool(held) and all(how == "near copy" for how, _ in held.values())
    for name in {items.items[item].set_name for item in held}:
        count.sets.setdefault(name, SetCount()).lines += 1
    for item in held:
        count.sets[items.items[item].set_name].items.add(item)


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += sum(map(len, line.texts))
        if size > _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def conversation_lines(rows: Iterable[Conversation]) -> Iterator[Line]:
    """Rows of a task, each message a text."""
    for row in rows:
        record = json.dumps({"messages": list(row.messages)}, ensure_ascii=False).encode()
        yield Line(row.where, [text_of(message["content"]) for message in row.messages], record)


def document_lines(files: Sequence[InputFile], json_key: str, tally: Tally) -> Iterator[Line]:
    """Documents of text files; those of .jsonl files as they stand there. What can't be used is counted in `tally`.

    InputError if nothing can be.
    """
    for batch in read_batches(files, json_key):
        whole = batch.records() if batch.form == ".jsonl" and batch.fault is None else None
        for item in parse(batch, json_key, None, tally):
            record = next(whole).content if whole else None
            if isinstance(item, Document):
                own = record or json.dumps({json_key: item.text}, ensure_ascii=False).encode()
                yield Line(f"{item.path}:{item.line}", [item.text], own)
    tally.check_usable(json_key)
