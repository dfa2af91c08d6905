"""Rows of conversations, printed as training sees them: each token with whether it is learned.

In a terminal what is learned is green, what is only read is dim; elsewhere what is learned has ^ below it. A line has
80 columns at most and breaks after each end of a line in the text, which is shown as \\n.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from megatron_iberis.config import Recipe
from megatron_iberis.data.conversation_rows import ConversationRows
from megatron_iberis.data.conversations import Counts, with_total
from megatron_iberis.monitor.console import visible
from megatron_iberis.stages.conversation_inputs import open_rows, with_tokenizer
from megatron_iberis.stages.inputs import open_tokenizer
from megatron_iberis.tokenizer import Tokenizer

COLUMNS = 80
_LEARNED, _READ = "green", "dim"


@dataclass(frozen=True)
class Piece:
    """Some text of a row. special: it is one of the template's marks."""

    text: str
    learned: bool
    special: bool

    @property
    def style(self) -> str:
        return f"{'bold ' if self.special else ''}{_LEARNED if self.learned else _READ}"


def show(recipe: Recipe, first: int, count: int) -> None:
    """Prints the table of the sources and `count` samples of a run from `first` on. InputError as at its start."""
    recipe = with_tokenizer(recipe)
    tokenizer = open_tokenizer(recipe)
    rows = open_rows(recipe, tokenizer)
    console = Console(highlight=False) if sys.stdout.isatty() else None
    for line in table(rows.conversations.counts):
        print(line)
    print(f"{rows}\n{rows.steps_per_epoch:,} steps of {rows.layout.batch:,} rows an epoch")
    for number in range(first, first + count):
        _show_row(rows, number, tokenizer, console)


def table(counts: Mapping[str, Counts]) -> list[str]:
    """What became of each source's conversations, in lines of 80 columns."""
    head = ["source", *(field.name.replace("without_target", "no target") for field in fields(Counts))]
    body = [[name[-22:], *(f"{n:,}" for n in astuple(each))] for name, each in with_total(counts).items()]
    widths = [max(len(row[column]) for row in (head, *body)) for column in range(len(head))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in (head, *body)
    ]


def _show_row(rows: ConversationRows, number: int, tokenizer: Tokenizer, console: Console | None) -> None:
    read, size = rows.read(number, 1), rows.layout.sequence_length
    filled = min(sum(piece.length for piece in rows.pieces_of(number)), size)
    targets = int((read.targets >= 0).sum())
    print(f"\nrow {number}: {filled:,} tokens, {targets:,} targets, {size - filled:,} padding")
    ids, learned = read.tokens[0, :filled].tolist(), [False, *(read.targets[0, :filled] >= 0).tolist()]
    if learned[-1]:  # the last target is no token of the row
        ids.append(int(read.targets[0, filled - 1]))
    for pieces in _conversations(ids, learned, tokenizer):
        for line in _lines(pieces):
            _print(line, console)


def _conversations(ids: Sequence[int], learned: Sequence[bool], tokenizer: Tokenizer) -> Iterator[list[Piece]]:
    """Of each conversation the runs of tokens that are learned, and of those that are not."""
    specials, pieces = set(tokenizer.specials.values()), list[Piece]()
    runs = groupby(zip(ids, learned, strict=False), key=lambda each: (each[1], each[0] in specials and each[0]))
    for (is_learned, special), run in runs:
        run_ids = [i for i, _ in run]
        if special == tokenizer.bos_id and pieces:
            yield pieces
            pieces = []
        pieces.append(Piece(tokenizer.decode(run_ids), is_learned, special is not False))
    yield pieces


def _lines(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """The same in lines of at most 80 columns, as they can be shown."""
    line, used = list[Piece](), 0
    for piece in pieces:
        for letter in piece.text:
            shown = visible(letter, sys.stdout.encoding or "utf-8")
            if used + cell_len(shown) > COLUMNS:
                yield line
                line, used = [], 0
            line.append(replace(piece, text=shown))
            used += cell_len(shown)
            if letter == "\n":
                yield line
                line, used = [], 0
    if line:
        yield line


def _print(line: Sequence[Piece], console: Console | None) -> None:
    if console:
        console.print(Text.assemble(*((piece.text, piece.style) for piece in line)), soft_wrap=True)
        return
    print("".join(piece.text for piece in line))
    marks = "".join(("^" if piece.learned else " ") * cell_len(piece.text) for piece in line).rstrip()
    if marks:
        print(marks)
