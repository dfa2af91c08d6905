"""One program in an interpreter of its own (inside.py): started, watched, and killed with all that it has started."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from megatron_iberis.sandbox.system_calls import system_call_filter

Level = Literal["full", "kernel", "weak"]

MOST_BACK = 64 << 10  # bytes that are taken from a program; its stdout and stderr lead nowhere
_LONGEST_START = 60.0  # seconds until the interpreter is up and locked: nothing of the program's
_MOST_WAITING = 20.0  # times the limit, on a machine however busy
_READY = b"ready\n"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    seconds: of CPU time, all threads together; twice as much may pass by the clock on a machine with nothing else to
    do, more on a busy one. memory: bytes, beside what the interpreter itself has. file_size, folder_size: bytes of a
    file, and of the work folder (the latter is kept at the level "full" only). allow_weak: run programs also where no
    more than limits can be had: they can then read, write and connect like the user.
    """

    seconds: float = 5.0
    memory: int = 512 << 20
    file_size: int = 16 << 20
    folder_size: int = 64 << 20
    allow_weak: bool = False


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Verdict:
    """passed: the tests ran to their end. reason: "passed", or why not. seconds: by the clock, without the start."""

    passed: bool
    reason: str
    level: Level
    seconds: float


class LockedOutError(Exception):
    """The kernel does not give what a level needs."""


def run_at(level: Level, program: str, tests: str, limits: Limits, beside: int = 1) -> Verdict:
    """Runs the program, then its tests, at that level.

    beside: programs that run at a time. LockedOutError if the level can't be had here; RuntimeError if the
    interpreter did not start: neither says anything about the program.
    """
    token = secrets.token_hex(16).encode()
    seconds = limits.seconds * _stretch(beside)
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="iberis-sandbox-") as folder, tempfile.TemporaryFile() as job, ours:
        wanted = _job(level, os.path.realpath(folder), limits) | {"program": program, "tests": tests}
        job.write(json.dumps(wanted).encode())
        job.seek(0)
        ours.sendall(token)
        with theirs:
            script = str(Path(__file__).with_name("inside.py"))
            process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-B", "-X", "utf8", script, str(theirs.fileno())],
                stdin=job,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                cwd=folder,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        try:
            watched = _Watched(ours, seconds)
            said = watched.until_the_end()
        finally:
            used = _kill(process)
    if not watched.ready:
        _did_not_start(said, process.returncode)
    return _verdict(said, token, watched, used, level, limits)


class _Watched:
    """What comes from a process, until it ends, says enough, or its time is over."""

    def __init__(self, line: socket.socket, seconds: float) -> None:
        self.line = line
        self.seconds = seconds
        self.began = time.monotonic()
        self.ready = self.late = False

    def until_the_end(self) -> bytes:
        """All that was said after `ready`, at most MOST_BACK bytes."""
        said = b""
        while len(said) < MOST_BACK:
            left = self.began + (self.seconds if self.ready else _LONGEST_START) - time.monotonic()
            if left <= 0 or not select.select([self.line], [], [], left)[0]:
                self.late = True
                return said
            with contextlib.suppress(ConnectionResetError):  # ended, without having read its token
                if block := self.line.recv(MOST_BACK - len(said)):
                    said += block
                    if not self.ready and said.startswith(_READY):
                        self.ready, self.began, said = True, time.monotonic(), said.removeprefix(_READY)
                    continue
            return said
        return said


def _did_not_start(said: bytes, exit_code: int) -> NoReturn:
    text = said.decode(errors="replace")
    if text.startswith("locked out: "):
        raise LockedOutError(text.removeprefix("locked out: "))
    text = text or f"it said nothing, exit code {exit_code}"
    raise RuntimeError(f"the sandbox's interpreter did not start ({text}): {sys.executable}")


def _verdict(said: bytes, token: bytes, watched: _Watched, used: float, level: Level, limits: Limits) -> Verdict:
    seconds = time.monotonic() - watched.began
    if said == token:
        return Verdict(True, "passed", level, seconds)
    if watched.late:
        reason = f"did not end in {watched.seconds:.3g} s"
    elif not said:
        reason = "used up its CPU time" if used >= limits.seconds else "ended before its tests did"
    else:
        reason = said.decode(errors="replace")[:400]
    return Verdict(False, reason, level, seconds)


def _kill(process: subprocess.Popen[bytes]) -> float:
    """Kills the process group; returns the seconds of CPU time that it has used."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _stretch(beside: int) -> float:
    """How many times its CPU time a program may take by the clock, on a machine as busy as this one is."""
    busy = max(os.getloadavg()[0], beside) / (os.cpu_count() or 1)
    return min(_MOST_WAITING, 2 * max(1.0, busy))


def _environment() -> dict[str, str]:
    """Empty but for this: -I would leave out the seed, without which sets of texts have another order every time."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # each would take memory of its own
    return {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"} | dict.fromkeys(threads, "1")


def _job(level: Level, folder: str, limits: Limits) -> dict[str, Any]:
    return {
        "level": level,
        "folder": folder,
        "parent": os.getpid(),
        "packages": list(_packages()),
        "readable": list(_readable()),
        "devices": [path for path in _DEVICES if os.path.exists(path)],
        "filter": system_call_filter().hex(),
        "seconds": limits.seconds,
        "memory": limits.memory,
        "file_size": limits.file_size,
        "folder_size": limits.folder_size,
    }


@functools.cache
def _packages() -> tuple[str, ...]:
    """Where this interpreter's installed packages lie, for its own child, which looks for none itself."""
    return tuple(path for path in sys.path if Path(path).name in ("site-packages", "dist-packages"))


@functools.cache
def _readable() -> tuple[str, ...]:
    """Folders and files without which Python and installed packages don't work."""
    found = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/ld.so.cache"}
    found |= {"/sys/devices/system/cpu", "/nix/store", os.path.dirname(os.__file__), *_packages()}
    found |= {sysconfig.get_path("platstdlib"), sysconfig.get_config_var("LIBDIR") or ""}
    found |= {os.path.join(sys.base_prefix, name) for name in ("lib", "lib64")}
    found |= {os.path.realpath(path) for path in found}
    return tuple(_outermost(path for path in sorted(found) if os.path.exists(path)))


def _outermost(paths: Iterable[str]) -> Iterator[str]:
    """Those of the sorted paths that lie in none before them."""
    kept: list[str] = []
    for path in paths:
        if not any(path.startswith(f"{folder}/") for folder in kept):
            kept.append(path)
            yield path
