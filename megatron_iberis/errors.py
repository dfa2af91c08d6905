"""`InputError`: a user's mistake, told apart from every other exception."""

from __future__ import annotations


class InputError(ValueError):
    """Something given by the user is wrong: one sentence that says what and how to mend it.

    A command prints it without a traceback and ends with exit code 2 (`command.py`). Any other
    exception, a ValueError of a library's among them, keeps its traceback and ends with 1.
    """
