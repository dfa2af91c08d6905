"""Time, memory and output are bounded; what a right program needs is there, whatever its parent holds and is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_iberis.sandbox import Level, Limits, run_many, sandbox_level
from megatron_iberis.sandbox.inside import moved
from tests.sandbox.levels import at_each_hard_level, run

EATS_80_MB = "def f():\n    held = bytearray(b'x') * (80 << 20)\n    return len(held)"
USES_NUMPY = "import numpy\ndef f():\n    return int(numpy.ones((300, 300)).dot(numpy.ones(300)).sum())"


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs here, no program ends by the clock."""
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))


@at_each_hard_level
@pytest.mark.usefixtures("busy")
def test_endless_work_ends_by_its_cpu_time(level: Level) -> None:
    began = time.monotonic()
    verdict = run(level, "while True:\n    pass", seconds=1)
    assert verdict.reason == "used up its CPU time"
    assert time.monotonic() - began < 30


@pytest.mark.usefixtures("busy")
def test_work_that_does_not_hear_of_it_ends_too() -> None:
    program = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass"
    verdict = run("full", program, seconds=1)
    assert verdict.reason in ("used up its CPU time", "ended before its tests did")


@at_each_hard_level
def test_endless_waiting_ends_by_the_clock(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert run(level, "import time\ntime.sleep(600)", seconds=0.2).reason == "did not end in 0.4 s"
    monkeypatch.setattr("os.getloadavg", lambda: (10.0, 0.0, 0.0))
    assert run(level, "import time\ntime.sleep(600)", seconds=0.2).reason == "did not end in 1 s"


@pytest.mark.usefixtures("busy")
def test_endless_output_goes_nowhere() -> None:
    program = "import os\nwhile True:\n    print('x' * 100000)\n    os.write(2, b'x' * 100000)"
    assert run("kernel", program, seconds=1).reason == "used up its CPU time"


@at_each_hard_level
def test_a_flood_through_every_descriptor_is_cut(level: Level) -> None:
    program = (
        "import os\nwhile True:\n    for number in range(3, 256):\n        try:\n"
        "            os.write(number, b'x' * 65536)\n        except OSError:\n            pass"
    )
    verdict = run(level, program)
    assert not verdict.passed
    assert len(verdict.reason) <= 400


@at_each_hard_level
@pytest.mark.parametrize(
    "program",
    [
        "held = []\nwhile True:\n    held.append(bytearray(10 << 20))",
        "import mmap\nheld = []\nwhile True:\n    held.append(mmap.mmap(-1, 10 << 20))",
    ],
)
def test_endless_memory_ends(level: Level, program: str) -> None:
    verdict = run(level, program, memory=200 << 20, seconds=20)
    assert "MemoryError" in verdict.reason or "Cannot allocate" in verdict.reason


@at_each_hard_level
def test_endless_files_end(level: Level) -> None:
    long = "with open('a', 'wb') as file:\n    while True:\n        file.write(bytes(1 << 20))"
    assert "File too large" in run(level, long, file_size=4 << 20).reason
    if level == "full":
        many = "for number in range(100):\n    open(str(number), 'wb').write(bytes(1 << 20))"
        assert "No space left" in run(level, many, folder_size=8 << 20).reason


@at_each_hard_level
def test_a_fork_bomb_does_not_go_off(level: Level) -> None:
    verdict = run(level, "import os\nwhile True:\n    os.fork()")
    assert "not implemented" in verdict.reason


@at_each_hard_level
def test_threads_without_end_end(level: Level) -> None:
    program = "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,)).start()"
    verdict = run(level, program, memory=300 << 20)
    assert not verdict.passed
    assert verdict.seconds < 30


def test_a_right_program_passes_whatever_its_parent_holds() -> None:
    """From a process holding 2 GB: 80 MB of the program's own, and numpy."""
    if sandbox_level() == "weak":
        pytest.skip("this kernel can't shut programs in")
    code = (
        "import mmap\nfrom megatron_iberis.sandbox import run_many\nheld = mmap.mmap(-1, 2 << 30)\n"
        f"jobs = [({EATS_80_MB!r}, 'assert f() == 80 << 20'), ({USES_NUMPY!r}, 'assert f() == 90000')]\n"
        "for verdict in run_many(jobs):\n    print(verdict.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["passed", "passed"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_levels_do_not_depend_on_the_user(tmp_path: Path) -> None:
    """As nobody: the same level, and the same verdicts as root's (whom no limit of processes would hold)."""
    code = (
        "from megatron_iberis.sandbox import run_many, sandbox_level\nprint(sandbox_level())\n"
        f"jobs = [({EATS_80_MB!r}, 'assert f() == 80 << 20'), ('import os\\nos.fork()', '')]\n"
        "for verdict in run_many(jobs):\n    print(verdict.passed)"
    )
    readable = all(os.stat(folder).st_mode & 5 for folder in [*Path(os.__file__).parents, *Path(__file__).parents])
    if not readable:
        pytest.skip("nobody may not read this Python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        user=65534,
        group=65534,
        cwd=tmp_path,
    )
    assert done.stdout.split() == [sandbox_level(), "True", "False"]


def test_many_programs_keep_their_order_and_are_told_as_they_come() -> None:
    if sandbox_level() == "weak":
        pytest.skip("this kernel can't shut programs in")
    told: dict[int, bool] = {}
    jobs = [("def f():\n    return 1", f"assert f() == {number % 2}") for number in range(20)]
    verdicts = run_many(jobs, Limits(), 4, lambda number, verdict: told.update({number: verdict.passed}))
    assert [verdict.passed for verdict in verdicts] == [number % 2 == 1 for number in range(20)]
    assert told == dict(enumerate(verdict.passed for verdict in verdicts))
    assert run_many([]) == []


def test_the_way_back_stays_open_whatever_its_number_is() -> None:
    """A parent with hundreds of open files may hand over any number, that to which it is to be moved among them."""
    reading, writing = os.pipe()
    for wanted in (writing, reading, writing + 50):
        found = moved(writing, wanted)
        assert found != writing
        os.write(found, b"x")
        assert os.read(reading, 1) == b"x"
        writing = found
    os.close(reading)
    os.close(writing)
