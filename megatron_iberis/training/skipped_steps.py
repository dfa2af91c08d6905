"""Steps whose loss or gradient is not finite: skipped by the engine, counted and written down here.

Each adds a line to skipped_steps.jsonl: step, loss, gradient_norm, and for each sample of the batch its number and
where it lies: `file`, `token` (offset of its first token in the file), `document` (number of the document of that
token) and `last_document` (of its last). A sample that is packed from pieces has an entry for each of them.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from megatron_iberis.data.rows import Located
from megatron_iberis.monitor.log import json_line
from megatron_iberis.resilience.failure import RunFailedError
from megatron_iberis.training.engine import StepResult

FILE = "skipped_steps.jsonl"


class SkippedSteps:
    """Watches for skipped steps in a row. All ranks see the same results and so come to the same end.

    folder: where to write, on one rank; None on the others. rows: samples of a step. limit: how many in a row are
    too many.
    """

    def __init__(self, folder: Path | None, source: Located, rows: int, limit: int) -> None:
        self._folder, self._source, self._rows, self._limit = folder, source, rows, limit
        self._in_a_row = 0

    def add(self, step: int, result: StepResult) -> str | None:
        """What to say of step number `step` (from 0); None where all was well. Raises RunFailedError at the limit."""
        if not result.skipped:
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        where = self._write(step, result)
        if self._in_a_row >= self._limit:
            raise RunFailedError(
                f"{self._in_a_row} steps in a row, up to step {step + 1}, had a loss or a gradient that is not "
                f"finite. {where}: look at those texts, or lower the learning rates, and resume from the last "
                "checkpoint (--run.resume)."
            )
        what = "gradient" if math.isfinite(result.loss) else "loss"
        return f"step {step + 1} was skipped: its {what} is not finite. {where}"

    def _write(self, step: int, result: StepResult) -> str:
        if self._folder is None:
            return ""
        path = self._folder / FILE
        samples = places(self._source, step * self._rows, self._rows)
        fields = {"step": step + 1, "loss": result.loss, "gradient_norm": result.gradient_norm, "samples": samples}
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json_line(fields))
        except OSError as error:
            return f"Its samples could not be written to {path} ({error.strerror})"
        return f"Where its samples lie stands in {path}"


def places(source: Located, first: int, count: int) -> list[dict[str, Any]]:
    """Where the samples first .. first + count - 1 lie: an entry for each piece of each sample."""
    numbers = range(first, first + count)
    return [{"sample": number, **asdict(place)} for number in numbers for place in source.locate(number)]
