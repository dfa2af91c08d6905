"""`UnreadableFileError`: a whole file that cannot be read, or not to its end; --on-error skip passes over it."""

from __future__ import annotations

from pathlib import Path

from megatron_iberis.errors import InputError


class UnreadableFileError(InputError):
    """`what` is wrong with the file ("is cut off before its end"), and how to mend it."""

    def __init__(self, path: Path, what: str, mend: str = "fetch or make it again, or leave it out") -> None:
        self.what = " ".join(what.split())  # libraries tell of faults on several lines
        super().__init__(f"{path} {self.what}: {mend}.")
