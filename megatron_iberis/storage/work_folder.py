"""PREFIX.partial/: everything that a run writes until its files are whole, and the journal from which it goes on.

* The files are only appended to. `save` syncs them and then replaces the journal, which holds their sizes and the
  state that belongs to them. Whenever a run is killed, the next one cuts the files to those sizes and goes on from
  that state.
* plan.json says what the run was to do: to go on with something else is refused.
* A lock keeps two runs from writing the same files; it ends with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

from megatron_iberis.errors import InputError

_PLAN, _JOURNAL = "plan.json", "journal.json"


class WorkFolder:
    """Opens PREFIX.partial/, emptied, or with `resume` as the last `save` left it.

    `state` is what that `save` was given, None at the beginning. InputError if another run is at work there, or if
    there is nothing to go on with: another `plan`, or files that were changed.
    """

    def __init__(self, prefix: str, plan: dict[str, Any], resume: bool) -> None:
        self.prefix = prefix
        self.path = Path(prefix + ".partial")
        self._streams: dict[str, IO[bytes]] = {}
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise InputError(f"another run is writing {prefix}: wait for its end, or name another prefix.") from None
        try:
            journal = self._load(plan) if resume else None
            self.state: dict[str, Any] | None = journal and journal["state"]
            if journal is None:
                self._empty()
                write_json(self.path / _PLAN, plan)
        except BaseException:
            os.close(self._lock)
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
        """From here a later run goes on, with the files as they are now and `state`."""
        for stream in self._streams.values():
            stream.flush()
            os.fsync(stream.fileno())
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
        """Lets go of the folder, and removes it if there is nothing to go on from."""
        with contextlib.suppress(OSError):  # a full disk refuses what is still in the buffer
            self._close_streams()
        if self.state is None:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def discard(self) -> None:
        """There is nothing to go on from: close() will remove the folder."""
        self.state = None

    def _close_streams(self) -> None:
        for stream in self._streams.values():
            stream.close()

    def _move(self, moves: dict[str, str | None]) -> None:
        # The old index goes first: no reader may ever pair it with the new tokens.
        for suffix, name in moves.items():
            if name is None or (suffix.endswith(".idx") and (self.path / name).exists()):
                Path(self.prefix + suffix).unlink(missing_ok=True)
        for suffix, name in moves.items():
            if name is not None and (self.path / name).exists():
                os.replace(self.path / name, self.prefix + suffix)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

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
                    f"{self.path} was begun with another {name} ({_short(before.get(name))}, not {_short(value)}): "
                    "give the same again, or start again without --resume."
                )

    def _empty(self) -> None:
        for path in self.path.iterdir():
            path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes `path` whole or not at all, on the disk when this returns."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(json_line(value, indent=2))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def json_line(value: Any, indent: int | None = None) -> bytes:
    """As UTF-8; what is no Unicode, in the name of a file, is escaped."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode(errors="backslashreplace") + b"\n"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."
