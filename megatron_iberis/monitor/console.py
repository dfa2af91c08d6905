"""The console of a training run: a line an event; colours in a terminal, plain text elsewhere.

What a model or a user wrote is shown escaped: no control character of theirs reaches the terminal.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from megatron_iberis.monitor.events import TRAIN, Event, Figures, Note, Samples, Step, Validation

PLAIN_WIDTH = 120
LABEL_STYLE = "dim"
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of characters that move the cursor, reorder the line, or cannot be seen."""


class Console:
    """Prints events to `stream`, by default standard output. A line every `log_every` of the run's `steps`."""

    def __init__(self, steps: int, log_every: int, stream: TextIO | None = None) -> None:
        self._steps, self._every = steps, log_every
        self._stream = stream or sys.stdout
        self._rich = RichConsole(file=self._stream, highlight=False) if self._stream.isatty() else None
        self._last_bits_per_byte: float | None = None

    def start(self, lines: list[str]) -> None:
        """A block of "name: value" lines."""
        pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self._print(Text())
        if self._rich:
            block = Table.grid(padding=(0, 0, 0, 2))  # long values are wrapped beside their names
            for name, value in pairs:
                block.add_row(Text(name, LABEL_STYLE), Text(self._visible(value)))
            self._rich.print(block)
        else:
            width = max((len(name) for name, _ in pairs), default=0)
            for name, value in pairs:
                self._print(Text(f"  {name:<{width}}  {self._visible(value)}"))
        self._print(Text())

    def tell(self, event: Event) -> None:
        """Prints a line or more; figures of a step only where the step's own line is printed."""
        match event:
            case Step() if self._is_shown(event.step):
                self._print(step_line(event, self._steps, self._width))
            case Validation():
                self._print(self._validation_line(event))
            case Samples():
                label = (f"sample after step {event.step:,}:  ", LABEL_STYLE)
                for sample in event.samples:
                    prompt, continuation = self._visible(sample.prompt), self._visible(sample.continuation)
                    self._print(Text.assemble(label, (f"[{prompt}]", "bold"), continuation))
            case Note():
                self._print(Text(self._visible(event.text), style="cyan"))
            case Figures() if event.group != TRAIN or self._is_shown(event.step):
                group = self._visible(event.group)
                heading = [(f"{group} ", "bold green"), (f"after step {event.step:,}:", LABEL_STYLE)]
                values = {self._visible(name): value for name, value in event.values.items()}
                for line in figures_lines(heading, values, self._width):
                    self._print(line)

    def close(self) -> None:
        self._stream.flush()

    @property
    def _width(self) -> int:
        return min(PLAIN_WIDTH, self._rich.width) if self._rich else PLAIN_WIDTH

    def _is_shown(self, step: int) -> bool:
        return step % self._every == 0 or step == self._steps

    def _validation_line(self, event: Validation) -> Text:
        last, self._last_bits_per_byte = self._last_bits_per_byte, event.bits_per_byte
        change = "" if last is None else f" ({event.bits_per_byte - last:+.4f})"
        return Text.assemble(
            ("validation ", "bold green"),
            (f"after step {event.step:,}:  ", LABEL_STYLE),
            (f"{event.bits_per_byte:.4f} bits per byte", "bold green"),
            f"{change}   loss {event.loss:.4f}   ",
            (duration(event.seconds), LABEL_STYLE),
        )

    def _print(self, line: Text) -> None:
        if self._rich:
            self._rich.print(line)
        else:
            print(line.plain, file=self._stream, flush=True)

    def _visible(self, text: str) -> str:
        return visible(text, self._stream.encoding or "utf-8")


def figures_lines(heading: list[tuple[str, str]], values: Mapping[str, float], width: int) -> list[Text]:
    """The heading and "name figure" pairs, in as many lines of at most `width` columns as it takes.

    heading: pieces of text and their styles. No pair is broken; further lines are indented.
    """
    lines = [Text.assemble(*heading)]
    for name, value in values.items():
        pair = Text.assemble("  ", (f"{name} ", LABEL_STYLE), (number(value), "bold"))
        if lines[-1].cell_len + pair.cell_len > width:
            lines.append(Text("  "))
        lines[-1].append_text(pair)
    return lines


def number(value: float) -> str:
    """Four significant digits, and whole numbers whole, as all are from 1,000 on: 0.2500, 12.50, 3, 1,234."""
    value = float(value)  # an int has no is_integer() before Python 3.12
    return f"{value:,.0f}" if value.is_integer() or not abs(value) < 1000 else f"{value:#.4g}"


def step_line(event: Step, steps: int, width: int) -> Text:
    """The figures of a step in at most `width` columns: where they are too many, the least asked for are left out."""
    digits = len(f"{steps:,}")
    rate = next(iter(event.learning_rates.values()), 0.0)
    # (figure, label before, label after, importance: 0 always stays)
    fields = [
        (f"{event.loss_smooth:7.4f}", "loss ", "", 0),
        (f"{significant(event.gradient_norm):<5}", "grad ", "", 3),
        (f"{significant(rate):<7}", "lr ", "", 4),
    ]
    if event.recent_tokens_per_second is None or event.recent_mfu is None:
        fields.append((duration(event.seconds), "first step took ", "", 0))
    else:
        fields.append((f"{event.recent_tokens_per_second:>7,.0f}", "", " tok/s", 1))
        fields.append((f"{100 * event.recent_mfu:4.1f} %", "MFU ", "", 2))
    fields.append((f"{event.memory_bytes / 1e9:.1f} GB", "", "", 5))
    if event.seconds_left is not None and event.step < steps:
        fields.append((duration(event.seconds_left), "ETA ", "", 0))
    head = f"{event.step:>{digits},}/{steps:,} {100 * event.step / steps:5.1f} %"
    while True:
        line = Text.assemble(("step ", LABEL_STYLE), (head, "bold"))
        for figure, before, after, _ in fields:
            style = "bold cyan" if before == "loss " else ""
            line.append("  ").append(before, LABEL_STYLE).append(figure, style).append(after, LABEL_STYLE)
        least = max(fields, key=lambda field: field[3])
        if line.cell_len <= width or least[3] == 0:
            return line
        fields.remove(least)


def significant(value: float) -> str:
    """Two significant digits, zeros at the end kept, and whole numbers whole: 0.020, 1.5, 123, 2.0e-05."""
    return f"{value:.0f}" if 10 <= value < 100_000 else f"{value:#.2g}"


def duration(seconds: float) -> str:
    """Seconds in the two units that tell most: "4.2 s", "45 s", "2 min 10 s", "3 h 05 min", "2 d 03 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part:02d} {part_name}"
    return f"{whole} s"


def visible(text: str, encoding: str) -> str:
    r"""The text on one line, with escapes (\n, \x1b, \u202e) for control characters and what `encoding` lacks."""
    escaped = (c.encode("unicode_escape").decode() if unicodedata.category(c) in HIDDEN else c for c in text)
    return "".join(escaped).encode(encoding, "backslashreplace").decode(encoding)
