"""`InputError`: a user's mistake, told apart from every other exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something given by the user is wrong: one sentence that says what and how to mend it.

    A command prints it without a traceback and ends with exit code 2 (`command.py`). Any other
    exception, a ValueError of a library's among them, keeps its traceback and ends with 1.
    """


@contextmanager
def as_input_errors() -> Iterator[None]:
    """Around C++ that reads a user's file: the ValueError for what is wrong there becomes an InputError."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from None
