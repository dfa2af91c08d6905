"""log.jsonl: one JSON object a line for each event of a run, on disk as soon as it happened.

* "event" is start, step, validation, samples, note or figures, with the fields that events.py has for it; "step"
  counts the steps done; "time" is UTC.
* Standard JSON: a figure that is nan or infinite stands as null, and by its name under "not_finite" ("values.reward"
  for one inside another object).
* After a resume each step stands there once: what came after the checkpoint is dropped before anything is added.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from megatron_iberis.monitor.events import Event
from megatron_iberis.storage.atomic import write_atomic


class JsonlLog:
    """The log of a run that resumes after `first_step` steps (0: from the start). OSError when the disk is full.

    kept_losses: those of the steps before, in order; kept_skipped: how many of those steps were skipped.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.kept_losses, self.kept_skipped = _drop_later(path, first_step)
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace")

    def tell(self, event: Event) -> None:
        """Writes the event's fields."""
        fields = asdict(event)
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        head = {"event": type(event).__name__.lower(), "step": fields.pop("step"), "time": time}
        self._file.write(json_line({**head, **fields}))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def json_line(fields: dict[str, Any]) -> str:
    """A line of JSON that every reader takes; nan and infinities go where the file's first lines say."""
    odd: dict[str, str] = {}
    fields = _finite(fields, "", odd)
    if odd:
        fields["not_finite"] = odd
    return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(fields: dict[str, Any], path: str, odd: dict[str, str]) -> dict[str, Any]:
    """The fields with None for what is not finite, which is added to `odd` by its dotted name."""
    finite: dict[str, Any] = {}
    for name, value in fields.items():
        finite[name] = _finite(value, f"{path}{name}.", odd) if isinstance(value, dict) else value
        if isinstance(value, float) and not math.isfinite(value):
            finite[name], odd[path + name] = None, str(value)
    return finite


def _drop_later(path: Path, first_step: int) -> tuple[list[float], int]:
    """Takes out of the log what lies after `first_step` steps (0: everything), and lines that were cut off.

    Returns the losses of the steps that stay, and how many of them were skipped. The log is replaced as a whole: a
    crash leaves the old one.
    """
    kept, losses, skipped = [], [], 0
    if first_step > 0 and path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            fields = _parsed(line)
            if fields and fields["step"] <= first_step:
                kept.append(line)
                skipped += fields.get("skipped") is True
                if fields.get("event") == "step" and isinstance(fields.get("loss"), float):
                    losses.append(fields["loss"])
    write_atomic(path, b"".join(kept))
    return losses, skipped


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a complete line with a step, else None."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    complete = line.endswith(b"\n") and isinstance(fields, dict) and isinstance(fields.get("step"), int)
    return fields if complete else None
