"""PREFIX.partial/: everything that a run writes until its files are whole, and the journal it resumes from.

* The files are only appended to. `save` syncs them and then replaces the journal, which holds their sizes and the
  state that belongs to them. Whenever a run is killed, the next one cuts the files to those sizes and resumes from
  that state.
* plan.json says what the run was to do: to resume with something else is refused.
* A lock keeps two runs from writing the same files; it ends with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import rename_together, sync_stream, write_json
from megatron_iberis.storage.locks import claim

_PLAN, _JOURNAL = "plan.json", "journal.json"
_LOOKED_FOR = (".idx", ".shard.json")  # what readers take the other files to belong to


class WorkFolder:
    """Opens PREFIX.partial/, emptied, or with `resume` as the last `save` left it.

    `state` is what that `save` was given, None at the beginning. InputError if another run is at work there, or if
    there is nothing to resume: another `plan`, or files that were changed.
    """

    def __init__(self, prefix: str, plan: dict[str, Any], resume: bool) -> None:
        self.prefix = prefix
        self.path = Path(prefix + ".partial")
        self.plan = plan
        self._streams: dict[str, IO[bytes]] = {}
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = claim(self.path)
        except BlockingIOError:
            raise InputError(f"another run is writing {prefix}: wait for its end, or name another prefix.") from None
        try:
            journal = self._load(plan) if resume else None
            self.state: dict[str, Any] | None = journal and journal["state"]
            if journal is None:
                self._empty()
                write_json(self.path / _PLAN, plan)
        except BaseException:
            self._lock.close()
            raise

    def append(self, name: str, content: bytes) -> None:
        """Adds to a file of the folder."""
        if name not in self._streams:
            self._streams[name] = (self.path / name).open("ab", buffering=1 << 20)
        self._streams[name].write(content)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, with what is still in a buffer."""
        written = {name: stream.tell() for name, stream in self._streams.items()}
        return {path.name: path.stat().st_size for path in self._files()} | written

    def rewind(self, sizes: dict[str, int], state: dict[str, Any]) -> None:
        """Takes back what was appended behind `sizes`, which `sizes()` gave, before anything more is appended."""
        write_json(self.path / _JOURNAL, {"sizes": sizes, "state": state})
        self._cut(sizes)
        self.state = state

    def save(self, state: dict[str, Any]) -> None:
        """From here a later run resumes, with the files as they are now and `state`."""
        for stream in self._streams.values():
            sync_stream(stream)
        sizes = {path.name: path.stat().st_size for path in self._files()}
        write_json(self.path / _JOURNAL, {"sizes": sizes, "state": state})
        self.state = state

    def publish(self, state: dict[str, Any], moves: dict[str, str | None]) -> None:
        """Puts files of the folder under their final names: PREFIX + key gets the file named by the value.

        None stands for a file of an earlier run that has no successor. Once begun this is completed by the next run,
        whenever this one is killed.
        """
        self._close_streams()
        write_json(self.path / _JOURNAL, {"sizes": {}, "state": state, "moves": moves})
        self._move(moves)
        self.state = state

    def close(self) -> None:
        """Lets go of the folder, and removes it if there is nothing to resume."""
        with contextlib.suppress(OSError):  # a full disk refuses what is still in the buffer
            self._close_streams()
        if self.state is None:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def discard(self) -> None:
        """There is nothing to resume: close() will remove the folder."""
        self.state = None

    def _close_streams(self) -> None:
        for stream in self._streams.values():
            stream.close()

    def _move(self, moves: dict[str, str | None]) -> None:
        # What readers look for goes first: none may ever pair the old index with the new tokens.
        stale = [
            Path(self.prefix + suffix)
            for suffix, name in moves.items()
            if name is None or (suffix.endswith(_LOOKED_FOR) and (self.path / name).exists())
        ]
        present = {suffix: name for suffix, name in moves.items() if name is not None}
        rename_together([(self.path / name, Path(self.prefix + suffix)) for suffix, name in present.items()], stale)

    def _files(self) -> list[Path]:
        return [path for path in sorted(self.path.iterdir()) if path.name not in (_PLAN, _JOURNAL)]

    def _load(self, plan: dict[str, Any]) -> dict[str, Any] | None:
        try:
            before = json.loads((self.path / _PLAN).read_bytes())
            journal = json.loads((self.path / _JOURNAL).read_bytes())
            self._check_plan(before, json.loads(json.dumps(plan)))
            sizes: dict[str, int] = journal["sizes"]
        except FileNotFoundError:
            return None  # killed before there was anything to keep
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{self.path} is damaged ({error}): start again without --resume.") from None
        if moves := journal.get("moves"):
            self._move(moves)
            return dict(journal)
        self._cut(sizes)
        return dict(journal)

    def _cut(self, sizes: dict[str, int]) -> None:
        for path in self._files():
            if path.name not in sizes:
                path.unlink()
        for name, size in sizes.items():
            path = self.path / name
            if not path.exists() or path.stat().st_size < size:
                raise InputError(f"{path} has lost what was written: start again without --resume.")
            os.truncate(path, size)

    def _check_plan(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        for name, value in now.items():
            if before.get(name) != value:
                raise InputError(
                    f"{self.path} was begun with another {name} ({short(before.get(name))}, not {short(value)}): "
                    "give the same again, or start again without --resume."
                )

    def _empty(self) -> None:
        for path in self.path.iterdir():
            path.unlink()


def has_journal(prefix: str) -> bool:
    """Whether there is a work folder of `prefix` that a run could resume."""
    return Path(f"{prefix}.partial", _JOURNAL).exists()


def short(value: Any) -> str:
    """The value as text, cut where it would fill the screen."""
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."
