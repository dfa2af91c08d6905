"""Where the files of a task lie: in a folder of the user's, or fetched from where they are published.

* A set's files are looked for in ROOT/NAME, ROOT/*/NAME and ROOT itself, in the form of its repository on the Hub or
  of its authors.
* Without a root they are fetched when a task is opened, once, to $IBERIS_DATA (default: data in the folder of the
  call, where data_tools/download.py writes too).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megatron_iberis.errors import InputError
from megatron_iberis.hub import download
from megatron_iberis.storage.locks import lock


@dataclass(frozen=True)
class Place:
    """published: the name in `hub.SETS`, "" if it cannot be fetched. folders: other names of its folder.

    splits: the name of a split -> patterns of its files below the folder; the first that finds some is taken.
    """

    published: str
    splits: Mapping[str, tuple[str, ...]]
    folders: tuple[str, ...] = ()

    def find(self, task: str, split: str, root: str) -> list[Path]:
        """The files of a split, by name. InputError if there is no such split, or its files are not there."""
        if split not in self.splits:
            raise InputError(f"{task} has no split {split!r}: choose among {', '.join(self.splits)}.")
        base = Path(root or os.environ.get("IBERIS_DATA", "data"))
        if found := self._search(base, split, own=bool(root)):
            return found
        if root or not self.published:
            raise InputError(self._missing(task, split, base))
        base.mkdir(parents=True, exist_ok=True)
        held = lock(base, wait=True)  # one process of a machine fetches, the others wait and find what has come
        try:
            if not self._search(base, split, own=False):
                download(self.published, base / self.published)
        finally:
            held.close()
        if found := self._search(base, split, own=False):
            return found
        raise InputError(self._missing(task, split, base))

    def _search(self, base: Path, split: str, own: bool) -> list[Path]:
        names = [name for name in (self.published, *self.folders) if name]
        places = [base / name for name in names]
        places += [path for name in names for path in sorted(base.glob(f"*/{name}"))]
        for place in (*places, *([base] if own else [])):
            for pattern in self.splits[split]:
                if pattern.startswith("*") and place == base and base.name not in names:
                    continue  # any file would do, also of another set
                if found := sorted(path for path in place.glob(pattern) if path.is_file()):
                    return found
        return []

    def _missing(self, task: str, split: str, base: Path) -> str:
        names = " or ".join(name for name in (self.published, *self.folders) if name)
        looked = f"the files of {task}, split {split} ({' or '.join(self.splits[split])}), are not in {base}/{names}"
        if self.published:
            fix = f"fetch them with: python data_tools/download.py {self.published} --output {base / self.published}"
        else:
            fix = "put them there, or name the folder that holds them as the root"
        return f"{looked}: {fix}."
