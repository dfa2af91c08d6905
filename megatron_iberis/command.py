"""How every command ends, and what their command lines share: errors in one sentence, a progress line, a summary.

| what happened                                       | said on stderr       | exit code |
|-----------------------------------------------------|----------------------|-----------|
| `InputError`                                        | error: the sentence  | 2         |
| a file can't be read or written, the disk is full   | error: file, reason  | 2         |
| Ctrl-C                                              | interrupted: ...     | 130       |
| SIGTERM                                             | nothing              | 143       |
| whoever read stdout has seen enough (`... | head`)  | nothing              | 0         |
| every other exception                               | its traceback        | 1         |
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from megatron_iberis.errors import InputError, sentence

if TYPE_CHECKING:
    from megatron_iberis.text.reading.records import Tally
    from megatron_iberis.text.summary import Summary

USAGE_ERROR = 2
INTERRUPTED = 128 + signal.SIGINT


def run(main: Callable[[], int | None], interrupted: str = "nothing was written.") -> int:
    """`exit_code`, and SIGTERM unwinds like Ctrl-C does, so that temporary files are removed. Main thread only."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return exit_code(main, interrupted)
    finally:
        signal.signal(signal.SIGTERM, before)


def say_error(said: str) -> None:
    """Says on stderr what the user can mend."""
    print(f"error: {said}", file=sys.stderr, flush=True)


def exit_code(main: Callable[[], int | None], interrupted: str = "", say: Callable[[str], None] = say_error) -> int:
    """Calls `main` and returns the exit code: main's own (None: 0), or as in the table above.

    interrupted: what Ctrl-C means for what was done. say: how a sentence about the input is told. Exceptions that are
    no fault of the input are not caught.
    """
    try:
        code = main() or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        if interrupted:
            print(f"interrupted: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except (InputError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads_stdout():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed
            return 0
        said = sentence(error)
        if said is None:
            raise
        say(said)
        return USAGE_ERROR


def _nobody_reads_stdout() -> bool:
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (OSError, ValueError):  # stdout is closed
        return True


def _terminate(signal_number: int, frame: Any) -> None:
    sys.exit(128 + signal_number)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one sentence; shows a module's docstring as it is written."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"error: {message}; see {self.prog} --help\n")


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


def show_summary(summary: Summary, prefix: str, specials_per_document: int, seconds: float) -> None:
    """Says which token files of `prefix` there are and what went into them; on stderr what could not be used."""
    warn_rejected(summary.tally)
    for output, counts in zip(summary.outputs, summary.splits.values(), strict=True):
        told = f"{counts.documents:,} documents, {counts.tokens:,} tokens"
        print(f"{output}.bin .idx .json: {told}" if counts.documents else f"{output}: nothing of it in this shard")
    total, tally = summary.total, summary.tally
    bytes_per_token = total.report(specials_per_document)["bytes_per_token"]
    left_out = f"{tally.empty:,} empty, {tally.too_short:,} too short, {tally.num_rejected:,} skipped"
    rows = [
        ("text", f"{total.text_bytes / 1e6:,.1f} MB, {bytes_per_token or 0} bytes a token"),
        ("read", f"{tally.read:,} documents ({left_out}, {summary.duplicates:,} duplicates)"),
    ]
    if not summary.finished_before:
        rows.append(("time", f"{seconds:.1f} s, {total.text_bytes / 1e6 / seconds:.1f} MB/s"))
    if tally.empty + tally.num_rejected:
        rows.append(("left out", f"{prefix}.rejects.jsonl"))
    if summary.duplicates:
        rows.append(("duplicates", f"{prefix}.duplicates.jsonl"))
    print_rows(rows)
