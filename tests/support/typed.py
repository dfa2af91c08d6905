"""A program in a terminal of 80 columns, typed to and watched."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07]*\x07")


class Typed:
    """`output` is all that came, `text` without what moves the cursor and sets colours."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], columns: int = 80) -> None:
        self._keyboard, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        self.output = b""
        self._seen = self._prompts = 0

    @property
    def text(self) -> str:
        return re.sub("\r+\n", "\n", _CONTROL.sub("", self.output.decode(errors="replace")))

    def type(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def see(self, wanted: str, seconds: float = 30) -> str:
        """Waits until `wanted` has come after what was seen last; returns what has come up to it."""
        deadline = time.monotonic() + seconds
        while (at := self.text.find(wanted, self._seen)) < 0:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{wanted!r} did not come after {self.text[self._seen :]!r}")
        before, self._seen = self._seen, at + len(wanted)
        return self.text[before : self._seen]

    def ready(self, seconds: float = 20) -> None:
        """Waits for the next prompt of prompt_toolkit, which begins with asking for pasted text in brackets."""
        deadline = time.monotonic() + seconds
        self._prompts += 1
        while self.output.count(b"\x1b[?2004h") < self._prompts:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"no prompt came after {self.text[self._seen :]!r}")

    def end(self) -> int:
        """Waits for the end of the program; its exit code."""
        deadline = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        while self._read(0.05):
            pass
        self.close()
        return self._process.returncode

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._keyboard >= 0:
            os.close(self._keyboard)
            self._keyboard = -1

    def _read(self, seconds: float) -> bool:
        """Whether something came within the time."""
        if not select.select([self._keyboard], [], [], max(0, seconds))[0]:
            return False
        try:
            found = os.read(self._keyboard, 65536)
        except OSError:  # the program has closed its side
            return False
        self.output += found
        return bool(found)
