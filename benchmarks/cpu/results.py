"""A measurement as a table of 80 columns, as a file, and beside an earlier one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.cpu.rows import Row
from benchmarks.cpu.shapes import Scale
from megatron_iberis.errors import InputError
from megatron_iberis.hardware.machine import machine_facts
from megatron_iberis.storage.atomic import write_json

WIDTH = 80
WORSE = 0.05
"""A ratio that is worse by more than this share of the earlier one fails."""
SAME = ("processor", "cores")
"""Facts of the machine that two measurements must share."""


@dataclass(frozen=True)
class Setting:
    """What a measurement was made on and of: two are comparable where this is the same."""

    machine: dict[str, Any]
    threads: int
    shapes: dict[str, Any]
    """By name, as JSON has them."""

    @classmethod
    def here(cls, scale: Scale, threads: int) -> Setting:
        shapes = {shape.name: asdict(shape) for shape in (scale.small, scale.large)}
        return cls(machine_facts(), threads, json.loads(json.dumps(shapes)))

    def differs(self, other: Setting) -> str:
        """In words where the two are not comparable; empty where they are."""
        for fact in SAME:
            if self.machine.get(fact) != other.machine.get(fact):
                return f"another machine ({fact} {other.machine.get(fact)}, here {self.machine.get(fact)})"
        if self.threads != other.threads:
            return f"other threads ({other.threads}, here {self.threads})"
        if self.shapes != other.shapes:
            return "other shapes"
        return ""


@dataclass(frozen=True)
class Measurement:
    """What --output writes."""

    setting: Setting
    rows: list[Row]


def write(path: Path, measurement: Measurement) -> None:
    """Writes what `read` reads."""
    write_json(path, asdict(measurement))


def read(path: Path, setting: Setting) -> list[Row]:
    """The rows of an earlier file; InputError where it is none, or of another machine, or of other shapes."""
    try:
        found = TypeAdapter(Measurement).validate_json(path.read_bytes())
    except ValidationError:
        raise InputError(f"{path} is no result of this benchmark: give a file that --output has written.") from None
    if difference := setting.differs(found.setting):
        raise InputError(f"{path} is of {difference}: give one that was measured under the same conditions.")
    return found.rows


def worse(rows: Sequence[Row], earlier: Sequence[Row]) -> Iterator[str]:
    """A sentence for each ratio that is more than 5 % worse. Rows that only one of the two has do not count.

    InputError where no row is in both.
    """
    before = {(row.section, row.what): row for row in earlier}
    both = [(row, before[key]) for row in rows if (key := (row.section, row.what)) in before]
    if not both:
        raise InputError("the earlier file has none of these rows: give one of the same conditions.")
    for new, old in both:
        change = (new.ratio - old.ratio) / abs(old.ratio) if old.ratio else 0.0
        loss = -change if new.more_is_better else change
        if loss > WORSE:
            yield (
                f"{new.section}, {new.what}: the ratio to the baseline was {old.ratio:.2f} and is {new.ratio:.2f}, "
                f"{100 * loss:.0f} % worse."
            )


def show(rows: Sequence[Row], title: str, console: Console | None = None) -> None:
    """Prints the table."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, width=WIDTH)
    table.pad_edge = False
    table.add_column("what", overflow="fold", ratio=1)
    for name in ("ours", "baseline", "ratio", "target"):
        table.add_column(name, justify="right", no_wrap=True)
    section = ""
    for row in rows:
        if row.section != section:
            table.add_row(f"{row.section}, {row.unit}", style="bold")
            section = row.section
        table.add_row(f"  {row.what}", _figure(row.ours), _figure(row.baseline), f"{row.ratio:.2f}", _target(row))
    (console or Console(width=WIDTH, highlight=False)).print(table)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    bound = f"{row.target.bound:.1f}" if row.target.of_ratio else f"{row.target.bound:.0f} {row.unit}"
    return f"{'>=' if row.more_is_better else '<='} {bound} {'met' if row.met else 'missed'}"
