"""What the command lines of data_tools share: errors in one sentence, a progress line, a summary."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from megatron_iberis.text.reading.records import Tally


def run(main: Callable[[], None], interrupted: str = "nothing was written.") -> int:
    """Calls `main` and returns the exit code: 2 after bad input, which becomes "error: ..." on stderr.

    `interrupted` says what Ctrl-C means for what was done. SIGTERM unwinds like Ctrl-C does, so that temporary files
    are removed.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {what}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _terminate(signal_number: int, frame: Any) -> None:
    sys.exit(128 + signal_number)


@contextmanager
def progress_line(what: str) -> Iterator[Callable[[int, int, int], None]]:
    """A line with share, MB/s of text and time left while stderr is a terminal, nothing otherwise.

    Gives the function to call: bytes read of the input, bytes of the input (0: not known), bytes of text done.
    """
    if not sys.stderr.isatty():
        yield lambda read, size, text_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), rate, TimeRemainingColumn())
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, rate="")

        def show(read: int, size: int, text_bytes: int) -> None:
            per_second = text_bytes / 1e6 / max(1e-9, time.monotonic() - started)
            progress.update(task, completed=read, total=size or None, rate=f"{per_second:.1f} MB/s")

        yield show


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Prints labels and values in two columns."""
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")


def path_argument(value: str) -> str:
    """For argparse: a path that is not empty, as "$DATA" is where DATA is not set."""
    if not value:
        raise argparse.ArgumentTypeError('the path is empty (""): give one, or . for the current folder.')
    return value if os.path.lexists(value) else os.path.expanduser(value)  # shells leave the ~ of --output=~/x


def show_notices(notices: Sequence[str]) -> None:
    """Says on stderr what a user may want to know of the input."""
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)


def warn_rejected(tally: Tally) -> None:
    """Says on stderr what could not be used, if anything."""
    if tally.rejected:
        print(f"skipped {tally.num_rejected:,} of {tally.read:,}: {tally.describe_rejected()}", file=sys.stderr)
