"""How well model-written code can be shut in on this machine: found out by trying to get out."""

from __future__ import annotations

import functools
import os
import socket
import sys
import tempfile
from pathlib import Path

from megatron_iberis.errors import InputError
from megatron_iberis.sandbox.process import Level, Limits, LockedOutError, run_at

# Runs in the sandbox. {outside}: a file of the parent's; {port}: where the parent listens.
_ATTEMPTS = """
import os, socket, threading

def connect():
    socket.create_connection(("127.0.0.1", {port}), timeout=2)

def read_outside():
    open({outside!r}).read()

def write_outside():
    open({outside!r}, "a").write("x")

def make_outside():
    open({outside!r} + ".new", "w").close()

def start_a_process():
    if os.fork() == 0:
        os._exit(0)

def signal_the_parent():
    os.kill({parent}, 0)

def gets_out(attempt):
    try:
        attempt()
    except OSError:
        return False
    return True

with open("file", "w") as file:
    file.write("x" * 100)
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
"""
_CHECK = """
for attempt in (connect, read_outside, write_outside, make_outside, start_a_process, signal_the_parent):
    assert not gets_out(attempt), attempt.__name__
"""
_PROBE = Limits(seconds=20)


@functools.cache
def sandbox_level() -> Level:
    """The best level that holds on this machine, found once.

    * full: user, network, process and mount namespaces (no network, a file tree of Python's own folders, read-only,
      and an empty work folder in memory), Landlock where there is, and the filter of system calls;
    * kernel: Landlock and the filter of system calls (no sockets, no new processes, no signals, no files outside);
    * weak: limits of time and memory only.
    """
    if sys.platform == "linux":
        if holds("full"):
            return "full"
        if holds("kernel"):
            return "kernel"
    return "weak"


def holds(level: Level) -> bool:
    """Whether a program at that level works, and gets out by none of the ways that are tried."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        outside = Path(folder) / "outside"
        outside.write_text("secret")
        port = server.getsockname()[1]
        program = _ATTEMPTS.format(outside=str(outside), port=port, parent=os.getpid())
        try:
            verdict = run_at(level, program, _CHECK, _PROBE)
        except LockedOutError:
            return False
        return verdict.passed and outside.read_text() == "secret"


def chosen_level(limits: Limits) -> Level:
    """`sandbox_level`; InputError if that is "weak" and the limits don't allow it."""
    level = sandbox_level()
    if level == "weak" and not limits.allow_weak:
        raise InputError(
            "model-written code can't be shut in on this machine (neither namespaces nor Landlock and seccomp work): "
            "run this on Linux 5.13 or newer, or allow it to run with your rights with --allow-weak-sandbox."
        )
    return level
