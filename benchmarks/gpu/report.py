"""The check's findings as tables of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

WIDTH = 80
Findings = dict[str, Any]


def show(findings: Findings, console: Console | None = None) -> None:
    """Prints what the JSON file holds."""
    console = console or Console(width=WIDTH, highlight=False)
    for part in _parts(findings):
        console.print()
        console.print(part)


def verdict(section: Findings) -> str:
    """A section in one word."""
    if not section["passed"]:
        return "FAILED"
    return "in part" if section["error"] else "passed" if section["checks"] else "done"


def _parts(findings: Findings) -> Iterator[RenderableType]:
    sections: dict[str, Findings] = findings["sections"]
    if any(section["checks"] for section in sections.values()):
        yield _checks(sections)
    speeds = {name: s["figures"] for name, s in sections.items() if "step_seconds" in s["figures"]}
    if speeds:
        yield _speeds(speeds)
    for name, figures in speeds.items():
        if figures.get("kernels"):
            yield _kernels(name, figures)
    yield _sections(sections)
    for name, section in sections.items():
        if section["error"]:
            yield f"{name}: {section['error']}"


def _table(title: str, *columns: str) -> Table:
    """Words in the first column, which may be folded; figures in the others."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, width=WIDTH, title_style="bold")
    table.add_column(columns[0], overflow="fold", ratio=1)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _checks(sections: dict[str, Findings]) -> Table:
    table = _table("Is it right?", "check", "found", "at most", "")
    for section in sections.values():
        for check in section["checks"]:
            word = "passed" if check["passed"] else "FAILED"
            table.add_row(check["what"], _short(check["found"]), _short(check["limit"]), word)
    return table


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2g}"


def _speeds(speeds: dict[str, Findings]) -> Table:
    table = _table("How fast? One GPU, bf16, ZeRO 1", "", *speeds)

    def row(label: str, form: str, *path: str) -> None:
        found = [_at(figures, path) for figures in speeds.values()]
        if any(value is not None for value in found):
            table.add_row(label, *("-" if value is None else format(value, form) for value in found))

    row("parameters", ",", "parameters")
    row("micro-batch, rows", "d", "rows")
    row("micro-batches a step", "d", "micro_batches")
    row("step, seconds", ".3f", "step_seconds")
    for part in ("forward", "backward", "optimizer", "other"):
        row(f"  {part}", ".3f", "parts", part)
    row("tokens/s", ",.0f", "tokens_per_second")
    row("MFU", ".1%", "mfu")
    row("peak memory, GB", ".1f", "peak_gigabytes")
    for model in ("Iberis", "Iberis, compiled", "reference", "compiled reference"):
        row(f"forward + backward: {model}, tokens/s", ",.0f", "passes", model, "tokens_per_second")
        row("  rows", "d", "passes", model, "rows")
        row("  peak memory, GB", ".1f", "passes", model, "peak_gigabytes")
    return table


def _at(figures: Findings, path: tuple[str, ...]) -> Any:
    value: Any = figures
    for key in path:
        value = value.get(key) if value else None
    return value


def _kernels(name: str, figures: Findings) -> Table:
    table = _table(f"The dearest kernels of a step of {name}", "kernel", "calls", "ms", "share")
    for kernel in figures["kernels"]:
        word = kernel["name"].replace("void ", "").replace("at::native::", "")
        word = word if len(word) <= 48 else f"{word[:45]}..."
        table.add_row(word, f"{kernel['calls']:,}", f"{1e3 * kernel['seconds']:.2f}", f"{kernel['share']:.1%}")
    return table


def _sections(sections: dict[str, Findings]) -> Table:
    table = _table("Sections", "section", "seconds", "")
    for name, section in sections.items():
        table.add_row(name, f"{section['seconds']:.0f}", verdict(section))
    return table
