"""`iberis data overlap`: which rows to be trained on hold items of evaluation sets. Its command line and tables."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from megatron_iberis.command import Parser, path_argument, warn_rejected
from megatron_iberis.errors import InputError

if TYPE_CHECKING:
    from megatron_iberis.text.overlap.counting import Line, SourceCount
    from megatron_iberis.text.overlap.items import EvaluationItems

_COLUMNS = 100
_ABOUT = """Counts the rows and documents to be trained on that hold items of evaluation sets: a run of 13 words in
common (Japanese: 30 characters), fewer if the item is shorter (down to 8 words, 18 characters), or nearly the same
text (MinHash). Punctuation, case, width and white space make no difference."""


def add_overlap(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command to `iberis data`."""
    command = commands.add_parser(
        "overlap", help="rows to be trained on that hold items of evaluation sets", description=_ABOUT
    )
    add = command.add_argument
    add(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="a recipe with conversations (any --section.field value may follow), a task, a file of conversations",
    )
    add("--text", nargs="+", default=[], type=path_argument, metavar="FILE", help="files of documents")
    add("--json-key", default="text", help="JSON key or column that holds a document (default: text)")
    add(
        "--against",
        nargs="+",
        metavar="SET",
        help="a task, TASK:SPLIT, or FILE.jsonl:KEY, the KEY of its items (default: all evaluation tasks there are)",
    )
    add("--root", default="", help="folder of the tasks' files (default: they are fetched)")
    add("--drop-to", type=path_argument, metavar="FILE", help="write the rest here, as .jsonl")
    add("--output", type=path_argument, metavar="FILE", help="write the tables here, as JSON (a report reads them)")
    add("--list", type=path_argument, metavar="FILE", help="write here what was found, as .jsonl")
    command.set_defaults(run=_overlap, overrides=True)


def _overlap(arguments: argparse.Namespace) -> None:
    from megatron_iberis.storage.atomic import write_json
    from megatron_iberis.storage.refusals import check_writable
    from megatron_iberis.text.overlap.counting import Overlap, count_overlaps
    from megatron_iberis.text.overlap.near_copies import NearCopies

    if arguments.sources and arguments.text and arguments.drop_to:
        raise InputError("--drop-to writes rows of one kind: give conversations or --text, not both.")
    for path in filter(None, (arguments.drop_to, arguments.list, arguments.output)):
        check_writable(path)
    sources = list(_sources(arguments))
    if not sources:
        raise InputError(
            "nothing to look through was given: name a recipe, a task, a file of conversations, or --text FILE."
        )
    items = _evaluation_items(arguments.against, arguments.root)
    near = NearCopies(items.items) if _minhash_is_there() else None
    counts: dict[str, SourceCount] = {}
    with _output(arguments.list) as listed, _output(arguments.drop_to) as rest:

        def found(overlap: Overlap) -> None:
            line, item, how, shared = overlap
            about = {"row": line.where, "set": item.set_name, "item": item.where, "how": how, "shared": shared}
            _write(listed, json.dumps(about, ensure_ascii=False).encode())

        for name, lines in sources:
            if sys.stderr.isatty():
                print(f"{name} ...", file=sys.stderr)
            counts[name] = count_overlaps(lines(), items, near, found, lambda line: _write(rest, line.record))
    for text in (*_set_table(items, counts), "", *_source_table(counts), *_cross_table(items, counts)):
        print(text)
    if arguments.output:
        Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(arguments.output), _as_json(items, counts))
    if arguments.drop_to:
        kept = sum(count.lines - count.held for count in counts.values())
        print(f"\n{kept:,} rows without any of them are in {arguments.drop_to}.")


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[IO[bytes] | None]:
    from megatron_iberis.storage.atomic import atomic_file

    if path is None:
        yield None
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(Path(path)) as stream:
            yield stream


def _write(stream: IO[bytes] | None, line: bytes) -> None:
    if stream is not None:
        stream.write(line.rstrip(b"\r\n") + b"\n")


def _minhash_is_there() -> bool:
    from megatron_iberis.text.ordering.similarity import check_installed

    try:
        check_installed("minhash")
    except InputError:
        print("note: near copies are not looked for: pip install 'megatron_iberis[dedup]'.", file=sys.stderr)
        return False
    return True


# ---- what is looked through, and for what


def _sources(arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Iterator[Line]]]]:
    """(Name, what reads it) of each source. InputError before any is read if one is missing."""
    from megatron_iberis.config import load_recipe
    from megatron_iberis.config.recipe import RECIPES
    from megatron_iberis.data.conversations import Conversations
    from megatron_iberis.stages.conversation_inputs import open_sources
    from megatron_iberis.tasks import open_task
    from megatron_iberis.text.overlap.counting import conversation_lines, document_lines
    from megatron_iberis.text.reading.inputs import InputFile, find_inputs
    from megatron_iberis.text.reading.records import Tally

    def documents(file: InputFile) -> Iterator[Line]:
        tally = Tally()
        yield from document_lines([file], arguments.json_key, tally)
        warn_rejected(tally)

    def rows(task: Conversations, numbers: range) -> Callable[[], Iterator[Line]]:
        return lambda: conversation_lines(task[number] for number in numbers)

    recipes = {path.stem for path in RECIPES.glob("*.toml")}
    for name in arguments.sources:
        if name.endswith(".toml") or name in recipes:
            for source in open_sources(load_recipe(name, arguments.rest)):
                yield source.name, rows(source.task, source.rows)
        else:
            task = open_task(name, "train", arguments.root)
            yield name, rows(task, range(len(task)))
    for file in find_inputs(arguments.text) if arguments.text else ():
        yield str(file.path), partial(documents, file)


def _evaluation_items(names: Sequence[str] | None, root: str) -> EvaluationItems:
    """Those of the sets named, or of all that are there."""
    from megatron_iberis.tasks import TASKS, conversations, open_task, spelling
    from megatron_iberis.text.overlap.items import EvaluationItems, file_items, items_of

    items, missing = EvaluationItems(), []
    for name in (
        names if names is not None else sorted(TASKS.keys() - spelling.TASKS.keys() - conversations.TASKS.keys())
    ):
        base, colon, rest = name.rpartition(":")
        if colon and Path(base).suffix:
            items.add(file_items(name, Path(base), rest))
            continue
        try:
            task = open_task(base or rest, rest if colon else "", root)
        except InputError:
            if names is not None:
                raise
            missing.append(name)
            continue
        if task.kind != "conversations":
            items.add(items_of(name, (task[number] for number in range(len(task)))), task.language)
        elif names is not None:
            raise InputError(f"{name} is there to train on, not to evaluate with: name another set after --against.")
    if missing and names is None:
        print(f"note: not there, and not looked for: {', '.join(missing)}.", file=sys.stderr)
    if not items.items:
        raise InputError("there is no evaluation set to look for: name the folder that holds some with --root.")
    return items


# ---- tables


def _sets(items: EvaluationItems, counts: Mapping[str, SourceCount]) -> Iterator[tuple[str, int, int, int]]:
    """The sets: items, those too short for runs of words, and those found in any source."""
    for name in dict.fromkeys(item.set_name for item in items.items):
        numbers = [number for number, item in enumerate(items.items) if item.set_name == name]
        found = {number for count in counts.values() if name in count.sets for number in count.sets[name].items}
        yield name, len(numbers), len(items.short.intersection(numbers)), len(found)


def _set_table(items: EvaluationItems, counts: Mapping[str, SourceCount]) -> list[str]:
    rows = [("evaluation set", "items", "too short for runs", "found")]
    rows += [(_short(name), *(f"{n:,}" for n in numbers)) for name, *numbers in _sets(items, counts)]  # type: ignore[misc]
    return _aligned(rows)


def _source_table(counts: Mapping[str, SourceCount]) -> list[str]:
    """The sources: rows, those with items of any set, and those of them that only MinHash has found."""
    rows = [("source", "rows", "with items", "near copies only")]
    rows += [(_short(n), f"{c.lines:,}", f"{c.held:,}", f"{c.near_only:,}") for n, c in counts.items()]
    return _aligned(rows)


def _cross_table(items: EvaluationItems, counts: Mapping[str, SourceCount]) -> list[str]:
    """Sources by sets, those that have something in common; as many tables as it takes not to be wide."""
    held = {name: count for name, count in counts.items() if count.held}
    order = dict.fromkeys(item.set_name for item in items.items)
    sets = [name for name in order if any(name in count.sets for count in held.values())]
    sources = ("source", *map(_short, held))
    tables = [[sources]]
    for name in sets:
        column = (_short(name), *(_cell(count, name) for count in held.values()))
        if sum(2 + max(map(len, each)) for each in (*tables[-1], column)) > _COLUMNS and len(tables[-1]) > 1:
            tables.append([sources])
        tables[-1].append(column)
    lines = [line for table in tables for line in ("", *_aligned(list(zip(*table, strict=True))))]
    return [*lines, "", "12 (4): 12 rows hold 4 items of the set."] if sets else []


def _as_json(items: EvaluationItems, counts: Mapping[str, SourceCount]) -> dict[str, list[dict[str, str | int]]]:
    """The tables: sets, sources, and what a source and a set have in common (both)."""
    return {
        "sets": [
            {"name": name, "items": number, "too_short": short, "found": found}
            for name, number, short, found in _sets(items, counts)
        ],
        "sources": [
            {"name": name, "rows": count.lines, "with_items": count.held, "near_only": count.near_only}
            for name, count in counts.items()
        ],
        "both": [
            {"source": name, "set": of, "rows": found.lines, "items": len(found.items)}
            for name, count in counts.items()
            for of, found in count.sets.items()
        ],
    }


def _cell(count: SourceCount, name: str) -> str:
    found = count.sets.get(name)
    return f"{found.lines:,} ({len(found.items):,})" if found else "0"


def _short(name: str) -> str:
    """A path's last two names."""
    return "/".join(Path(name).parts[-2:])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
