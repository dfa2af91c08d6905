"""What a section of the check finds, kept in a file while it runs: one that is cut short loses nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Record:
    """Checks (found, and what it may be at most) and figures of one section, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {"doing": "starting", "optional": False, "checks": [], "figures": {}}
        self._save()

    def begin(self, doing: str, optional: bool = False) -> None:
        """Names what comes next, for a report of its end. optional: nothing fails when it does not get done."""
        self._found |= {"doing": doing, "optional": optional}
        self._save()

    def check(self, what: str, found: float, limit: float) -> None:
        """A check, passed when found <= limit; NaN does not pass."""
        passed = found <= limit
        shown = found if math.isfinite(found) else str(found)  # JSON knows no NaN
        self._found["checks"].append({"what": what, "found": shown, "limit": limit, "passed": passed})
        self._save()

    def figures(self, **values: Any) -> None:
        """Numbers to report, by name."""
        self._found["figures"] |= values
        self._save()

    def _save(self) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._found), encoding="utf-8")
        partial.replace(self._path)


def largest(values: Iterable[float]) -> float:
    """The largest of them; NaN where one is (Python's max may pass it over)."""
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else max(found)
