"""The console of a training run: a line an event; colours in a terminal, plain text elsewhere.

What a model or a user wrote is shown escaped: no control character of theirs reaches the terminal.
"""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from megatron_iberis.monitor.metrics import StepReport

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

    def step(self, report: StepReport) -> None:
        if report.done % self._every and report.done != self._steps:
            return
        width = min(PLAIN_WIDTH, self._rich.width) if self._rich else PLAIN_WIDTH
        self._print(step_line(report, self._steps, width))

    def validation(self, done: int, bits_per_byte: float, loss: float, seconds: float) -> None:
        last, self._last_bits_per_byte = self._last_bits_per_byte, bits_per_byte
        change = "" if last is None else f" ({bits_per_byte - last:+.4f})"
        self._print(
            Text.assemble(
                ("validation ", "bold green"),
                (f"after step {done:,}:  ", LABEL_STYLE),
                (f"{bits_per_byte:.4f} bits per byte", "bold green"),
                f"{change}   loss {loss:.4f}   ",
                (duration(seconds), LABEL_STYLE),
            )
        )

    def samples(self, done: int, texts: list[tuple[str, str]]) -> None:
        for prompt, continuation in texts:
            label = (f"sample after step {done:,}:  ", LABEL_STYLE)
            self._print(Text.assemble(label, (f"[{self._visible(prompt)}]", "bold"), self._visible(continuation)))

    def note(self, done: int, text: str) -> None:
        self._print(Text(self._visible(text), style="cyan"))

    def close(self) -> None:
        self._stream.flush()

    def _print(self, line: Text) -> None:
        if self._rich:
            self._rich.print(line)
        else:
            print(line.plain, file=self._stream, flush=True)

    def _visible(self, text: str) -> str:
        return visible(text, self._stream.encoding or "utf-8")


def step_line(report: StepReport, steps: int, width: int) -> Text:
    """The figures of a step in at most `width` columns: where they are too many, the least asked for are left out."""
    metrics, digits = report.metrics, len(f"{steps:,}")
    rate = next(iter(metrics.learning_rates.values()), 0.0)
    # (figure, label before, label after, importance: 0 always stays)
    fields = [
        (f"{report.loss_smooth:7.4f}", "loss ", "", 0),
        (f"{significant(metrics.gradient_norm):<5}", "grad ", "", 3),
        (f"{significant(rate):<7}", "lr ", "", 4),
    ]
    if report.recent_tokens_per_second is None or report.recent_mfu is None:
        fields.append((duration(metrics.seconds), "first step took ", "", 0))
    else:
        fields.append((f"{report.recent_tokens_per_second:>7,.0f}", "", " tok/s", 1))
        fields.append((f"{100 * report.recent_mfu:4.1f} %", "MFU ", "", 2))
    fields.append((f"{report.memory_bytes / 1e9:.1f} GB", "", "", 5))
    if report.seconds_left is not None and report.done < steps:
        fields.append((duration(report.seconds_left), "ETA ", "", 0))
    head = f"{report.done:>{digits},}/{steps:,} {100 * report.done / steps:5.1f} %"
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
