"""log.jsonl: one JSON object a line for each event of a run, on disk as soon as it happened.

* "event" is step, validation, samples or note; "step" counts the steps done; "time" is UTC.
* Standard JSON: a figure that is nan or infinite stands as null, and by its name under "not_finite".
* After a resume each step stands there once: what came after the checkpoint is dropped before anything is added.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from megatron_iberis.monitor.metrics import StepReport
from megatron_iberis.storage.atomic import write_atomic


class JsonlLog:
    """The log of a run that goes on after `first_step` steps (0: from the start). OSError when the disk is full.

    kept_losses: those of the steps before, in order; kept_skipped: how many of those steps were skipped.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.kept_losses, self.kept_skipped = _drop_later(path, first_step)
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace")

    def step(self, report: StepReport) -> None:
        metrics = report.metrics
        self._write(
            "step",
            report.done,
            loss=metrics.loss,
            loss_smooth=report.loss_smooth,
            gradient_norm=metrics.gradient_norm,
            learning_rates=metrics.learning_rates,
            momentum=metrics.momentum,
            seconds=metrics.seconds,
            tokens=metrics.tokens,
            skipped=metrics.skipped,
            tokens_per_second=report.tokens_per_second,
            mfu=report.mfu,
            memory_bytes=report.memory_bytes,
        )

    def validation(self, done: int, bits_per_byte: float, loss: float, seconds: float) -> None:
        self._write("validation", done, bits_per_byte=bits_per_byte, loss=loss, seconds=seconds)

    def samples(self, done: int, texts: list[tuple[str, str]]) -> None:
        pairs = [{"prompt": prompt, "continuation": continuation} for prompt, continuation in texts]
        self._write("samples", done, samples=pairs)

    def note(self, done: int, text: str) -> None:
        self._write("note", done, text=text)

    def close(self) -> None:
        self._file.close()

    def _write(self, event: str, done: int, **fields: Any) -> None:
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._file.write(json_line({"event": event, "step": done, "time": time, **fields}))
        self._file.flush()


def json_line(fields: dict[str, Any]) -> str:
    """A line of JSON that every reader takes; nan and infinities go where the file's first lines say."""
    odd = {k: str(v) for k, v in fields.items() if isinstance(v, float) and not math.isfinite(v)}
    if odd:
        fields = {k: None if k in odd else v for k, v in fields.items()} | {"not_finite": odd}
    return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"


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
