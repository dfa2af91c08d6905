"""How a command ends: a user's mistake is one sentence, everything else keeps its traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_iberis.command import exit_code, run
from megatron_iberis.errors import InputError

ROOT = Path(__file__).parents[1]


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("a is not b: write b."), "a is not b: write b."),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied: give yourself"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), "a: No space left on device: make room"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: make room"),
        (OSError(errno.EIO, "Input/output error", b"a"), "a: Input/output error."),
    ],
)
def test_a_mistake_or_a_file_that_cannot_be_used_is_one_sentence(
    capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    assert run(raising(error)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {said}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("of a library's"),
        RuntimeError("x"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        BrokenPipeError(errno.EPIPE, "to a worker of our own"),
        OSError("no file is named"),
        OSError(errno.EBADF, "Bad file descriptor", 3),
    ],
)
def test_every_other_exception_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as found:
        exit_code(raising(error))
    assert found.value is error


def test_exit_codes_of_success_and_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: None) == 0
    assert run(lambda: 3) == 3
    assert run(raising(KeyboardInterrupt()), "nothing was written.") == 130
    assert capsys.readouterr().err == "interrupted: nothing was written.\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def start(code: str, **pipes: int) -> subprocess.Popen[str]:
    lines = f"import sys, time\nfrom megatron_iberis.command import run\n{code}\nsys.exit(run(main))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", lines], text=True, env=environment, **pipes)  # type: ignore[call-overload, no-any-return]


def test_a_closed_pipe_is_nobodys_mistake() -> None:
    code = "def main():\n  while True: print('x' * 1000)"
    with start(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 0


def test_sigterm_unwinds_and_ends_with_143(tmp_path: Path) -> None:
    left, ready = tmp_path / "left", tmp_path / "ready"
    code = f"""
def main():
    try:
        open({str(ready)!r}, "w").close()
        time.sleep(60)
    finally:
        open({str(left)!r}, "w").close()
"""
    process = start(code, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == 143
    assert left.exists()


def test_a_folder_that_cannot_be_made_is_one_sentence() -> None:

    arguments = ["-m", "examples.sample", "--output", "/proc/nowhere/corpus.jsonl"]
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: /proc/nowhere")
    assert done.stderr.count("\n") == 1
