"""Nothing gets out: no file outside, no network, no process, no signal, at each level that shuts programs in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.sandbox import Level, Limits, run_tests
from megatron_iberis.sandbox import level as levels
from tests.sandbox.levels import at_each_hard_level, need, run


def escapes(level: Level, *attempts: str) -> list[str]:
    """Those of the statements that raise no OSError."""
    found = run(
        level,
        "import os, socket, sys, ctypes, subprocess, resource, shutil, fcntl, signal\nout = []\n"
        + "".join(
            f"try:\n    {attempt}\n    out.append({attempt!r})\nexcept OSError:\n    pass\n" for attempt in attempts
        ),
        "assert not out, '; '.join(out)",
    )
    return [] if found.passed else [found.reason]


@at_each_hard_level
def test_no_file_outside_is_read_or_listed(level: Level, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    attempts = [f"open({path!r}, 'rb').read(1)" for path in ("/etc/passwd", str(secret), __file__)]
    attempts += [f"open('/proc/{os.getpid()}/{name}', 'rb').read(1)" for name in ("environ", "mem", "cmdline")]
    attempts += [f"os.listdir({path!r})" for path in ("/etc", "/root", "/home", "/proc", str(tmp_path))]
    assert escapes(level, *attempts) == []


@at_each_hard_level
def test_nothing_outside_is_changed(level: Level, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    os.utime(kept, (1, 1))
    os.chmod(kept, 0o600)
    path, library = str(kept), os.__file__
    attempts = [f"open({path!r}, 'w')", f"open({path + '.new'!r}, 'w')", f"os.remove({path!r})"]
    attempts += [f"os.truncate({path!r}, 0)", f"os.chmod({path!r}, 0o777)", f"os.chown({path!r}, 1, 1)"]
    attempts += [f"os.utime({path!r})", f"os.rename({path!r}, 'here')", f"os.link({path!r}, 'here')"]
    attempts += [f"os.mkdir({path + '.d'!r})", f"os.symlink('a', {path + '.l'!r})", "os.mkdir('/iberis')"]
    attempts += [f"open({library!r}, 'a')", f"os.open({path!r}, os.O_RDONLY | os.O_TRUNC)"]
    attempts += [f"os.link({library!r}, 'os.py'); open('os.py', 'a')", f"os.setxattr({path!r}, 'user.a', b'')"]
    assert escapes(level, *attempts) == []
    assert kept.read_text() == "kept"
    assert (kept.stat().st_mtime, kept.stat().st_mode & 0o777) == (1, 0o600)
    assert os.listdir(tmp_path) == ["kept"]


@at_each_hard_level
def test_no_network(level: Level) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        attempts = [f"socket.create_connection(('127.0.0.1', {port}), 1)", "socket.socket(socket.AF_UNIX)"]
        attempts += ["socket.create_server(('127.0.0.1', 0))", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"]
        attempts += ["socket.getaddrinfo('localhost', 80)"]
        assert escapes(level, *attempts) == []
        with pytest.raises(BlockingIOError):
            server.accept()


@at_each_hard_level
def test_no_process_and_no_signal(level: Level) -> None:
    me = os.getpid()
    attempts = [
        "os.fork()",
        "subprocess.run(['true'])",
        "os.execv(sys.executable, ['python'])",
        "os.memfd_create('a')",
    ]
    # Signal 0 is none: were they let through, nothing would end but this test.
    attempts += [f"os.kill({me}, 0)", "os.kill(os.getppid(), 0)", "os.kill(-1, 0)", "os.killpg(0, 0)", "os.setsid()"]
    attempts += [f"os.sched_setaffinity({me}, [0])", f"os.setpriority(0, {me}, 19)"]
    attempts += [f"fcntl.fcntl(1, fcntl.F_SETOWN, {me})"]
    assert escapes(level, *attempts) == []


@at_each_hard_level
def test_system_calls_past_python_are_refused_too(level: Level) -> None:
    calls = {
        "ptrace": (101, 16, os.getpid(), 0, 0),
        "process_vm_readv": (310, os.getpid(), 0, 0, 0, 0, 0),
        "vfork": (58,),
        "clone": (56, 17, 0, 0, 0, 0),
        "clone3": (435, 0, 0),
        "unshare": (272, 0x10000000),
        "mount": (165, 0, 0, 0, 0, 0),
        "bpf": (321, 0, 0, 0),
        "io_uring_setup": (425, 1, 0),
        "shmget": (29, 0, 4096, 0o1600),
        "no pdeathsig": (157, 1, 0, 0, 0, 0),
        "x32 getpid": (0x40000000 | 39,),
    }
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nout = []\n"
        f"for name, words in {calls!r}.items():\n"
        "    if libc.syscall(*[ctypes.c_long(word) for word in words]) != -1 or ctypes.get_errno() != 38:\n"
        "        out.append(name)\n"
    )
    assert run(level, program, "assert not out, out").reason == "passed"


@at_each_hard_level
def test_limits_can_not_be_lifted(level: Level) -> None:
    attempts = [f"resource.setrlimit(resource.RLIMIT_{name}, (-1, -1))" for name in ("AS", "CPU", "FSIZE")]
    program = "import resource\nout = []\n" + "".join(
        f"try:\n    {attempt}\n    out.append(1)\nexcept (OSError, ValueError):\n    pass\n" for attempt in attempts
    )
    assert run(level, program, "assert not out").reason == "passed"


@at_each_hard_level
def test_nothing_of_the_parent_is_handed_down(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    program = (
        "import os, sys\nseen = []\nfor number in range(3, 256):\n    try:\n        os.fstat(number)\n"
        "        seen.append(number)\n    except OSError:\n        pass\n"
    )
    tests = "assert 'HF_TOKEN' not in os.environ and len(os.environ) < 9, os.environ\nassert len(seen) == 1, seen\n"
    tests += "assert not os.read(0, 1) and not os.listdir('.') and sys.argv == ['']"
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        assert run(level, program, tests).reason == "passed"
    finally:
        os.close(read)
        os.close(write)


@at_each_hard_level
def test_nothing_is_left(level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(level)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = "import os\nos.mkdir('a')\nopen('a/b', 'w').write('x')\nos.chdir('a')"
    assert run(level, program).passed
    assert os.listdir(tmp_path) == []


@at_each_hard_level
def test_it_ends_with_its_parent(level: Level) -> None:
    """The parent is killed while a program sleeps: the program's process ends, too."""
    need(level)
    start = (
        "from megatron_iberis.sandbox import Limits, run_tests\n"
        f"run_tests('import time\\ntime.sleep(60)', '', Limits(seconds=60), level={level!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", start], start_new_session=True)
    try:
        children = wait_for(
            lambda: descendants(parent.pid), lambda found: len(found) == (2 if level == "full" else 1)
        )
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: [pid for pid in children if alive(pid)], lambda left: not left) == []


def wait_for(look: Callable[[], list[int]], enough: Callable[[list[int]], bool], seconds: float = 20) -> list[int]:
    until = time.monotonic() + seconds
    while not enough(found := look()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def descendants(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def test_the_weak_level_is_refused_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    levels.sandbox_level.cache_clear()
    monkeypatch.setattr(levels, "holds", lambda level: False)
    try:
        with pytest.raises(InputError, match="--allow-weak-sandbox"):
            run_tests("x = 1", "assert x == 1")
        verdict = run_tests("x = 1", "assert x == 1", Limits(allow_weak=True))
        assert (verdict.passed, verdict.level) == (True, "weak")
        assert not run_tests("import os; os._exit(0)", "", Limits(allow_weak=True)).passed
    finally:
        levels.sandbox_level.cache_clear()


@pytest.mark.parametrize("best", ["full", "kernel"])
def test_the_best_level_that_holds_is_taken(best: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    levels.sandbox_level.cache_clear()
    monkeypatch.setattr(levels, "holds", lambda level: level in ("kernel", best))
    try:
        assert levels.sandbox_level() == best
    finally:
        levels.sandbox_level.cache_clear()


def test_what_a_program_starts_is_killed_with_it(tmp_path: Path) -> None:
    """At "weak", the only level where it can start anything."""
    program = f"""
import subprocess
started = subprocess.Popen(["sleep", "60"])
open({str(tmp_path / "pid")!r}, "w").write(str(started.pid))
"""
    assert run_tests(program, "", Limits(allow_weak=True), level="weak").passed
    pid = int((tmp_path / "pid").read_text())
    assert wait_for(lambda: [pid] if alive(pid) else [], lambda left: not left) == []


def test_the_probe_finds_out_what_does_not_hold() -> None:
    """At "weak" the probe's program gets out: what is found is not what was hoped for."""
    assert not levels.holds("weak")
