"""`iberis report`: its command line. What it needs is imported when it runs, and torch never is."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from megatron_iberis.command import Parser, path_argument, print_rows, show_notices
from megatron_iberis.errors import InputError


def add_report(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command."""
    command = commands.add_parser("report", help="one page about a model: scores, curves, samples, data, time")
    command.add_argument(
        "--run",
        dest="runs",
        nargs="+",
        required=True,
        type=path_argument,
        metavar="FOLDER",
        help="run folders in the order of their stages; those before the first are found by its run.start_from",
    )
    command.add_argument("--output", type=path_argument, required=True, help="folder for report.md and its pictures")
    command.add_argument("--name", help="of the model (default: made of its size)")
    command.add_argument("--timings", type=path_argument, metavar="FILE", help="wall clock of each step, as JSON")
    command.add_argument("--price", type=float, metavar="DOLLARS", help="of an hour of the machine, for the costs")
    command.add_argument("--html", action="store_true", help="also write report.html, the same in one file")
    command.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from megatron_iberis.report import drawing
    from megatron_iberis.report.document import compose, write
    from megatron_iberis.report.html import page
    from megatron_iberis.report.records import read_runs
    from megatron_iberis.report.words import amount
    from megatron_iberis.storage.refusals import check_writable

    price = arguments.price
    if price is not None and not (math.isfinite(price) and price > 0):
        raise InputError(f"--price {price:g} is no price: give the dollars of an hour, for example 24.")
    timings = read_timings(Path(arguments.timings)) if arguments.timings else {}
    runs = read_runs(arguments.runs)
    check_writable(arguments.output, folder=True)
    if not drawing.installed():
        show_notices(["there are no pictures: matplotlib is missing (pip install 'megatron_iberis[report]')."])
    elif drawing.japanese_font() is None:
        show_notices(
            ["no font with Japanese letters was found for the pictures: pip install 'megatron_iberis[report]'."]
        )
    name = arguments.name or f"Saint Iberis, {amount(runs[0].recipe.model.parameter_count())} parameters"
    report = compose(runs, name, timings, price)
    html = page(report.text, report.pictures, name) if arguments.html else None
    written = write(report, Path(arguments.output), html)
    print_rows([("stages", ", ".join(run.label for run in runs)), ("report", str(written[-1]))])


def read_timings(path: Path) -> dict[str, float]:
    """Seconds by step of a file {"steps": {"base": {"seconds": 12.3}}}. InputError for another one."""
    try:
        steps = json.loads(path.read_bytes())["steps"]
        found = {str(name): float(step["seconds"]) for name, step in steps.items() if step.get("seconds") is not None}
        if not all(math.isfinite(seconds) and seconds >= 0 for seconds in found.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f'{path} holds no timings: it has to look like {{"steps": {{"base": {{"seconds": 12.3}}}}}}.'
        ) from None
    return found
