"""`make check-gpu`, on a CPU: its sections at a tiny size, what it does with one that fails, and what it prints."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import report, sections
from benchmarks.gpu.golden import LIMITS, TRAJECTORY_LIMIT
from benchmarks.gpu.launched import compare
from benchmarks.gpu.record import Record, largest
from benchmarks.gpu.scale import CPU, CUDA
from benchmarks.gpu.sections import SECTIONS, Section
from tests.support.golden_cases import CASES
from tests.support.ranks import Ranks

ROOT = Path(__file__).parents[2]


def on_this_rank(module: str, file: Path, *arguments: str) -> dict[str, Any]:
    """Runs on a rank: a section at the CPU's size, without a process of its own; what it recorded."""
    from benchmarks.gpu import golden, speed

    {"golden": golden, "speed": speed}[module].run(CPU, Record(file), *arguments)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_golden_vectors_are_met_and_each_tolerance_is_told(one_rank: Ranks, tmp_path: Path) -> None:
    (found,) = one_rank(on_this_rank, "golden", tmp_path / "record")
    limits = [check["limit"] for check in found["checks"]]
    assert limits == [*LIMITS.values(), TRAJECTORY_LIMIT]
    assert all(check["passed"] for check in found["checks"])
    assert set(CUDA.cases) == set(CASES)


@pytest.mark.full
def test_speed_tells_rate_memory_parts_kernels_and_the_references(one_rank: Ranks, tmp_path: Path) -> None:
    (found,) = one_rank(on_this_rank, "speed", tmp_path / "record", "d12")
    figures = found["figures"]
    assert (figures["rows"], figures["micro_batches"]) == (CPU.rows, 1)
    assert figures["tokens_per_second"] == pytest.approx(figures["step_tokens"] / figures["step_seconds"])
    assert 0 < figures["mfu"] < 1
    assert figures["peak_gigabytes"] > 0
    assert set(figures["parts"]) == {"forward", "backward", "optimizer", "other"}
    assert all(seconds > 0 for seconds in figures["parts"].values())
    assert 0 < len(figures["kernels"]) <= 10
    assert list(figures["passes"]) == ["Iberis", "Iberis, compiled", "reference", "compiled reference"]


class NoMoreMemory:
    """An engine that has room for so many rows a step."""

    def __init__(self, rows: int) -> None:
        from benchmarks.gpu import speed

        self.room, self.seen = rows, list[int]()
        self.recipe, self.device, self.deepspeed = speed.recipe_of("d12", CPU, 1, 1), torch.device("cpu"), self

    def step(self, number: int, batches: list[Any]) -> None:
        self.seen.append(len(batches[0].tokens))
        if self.seen[-1] > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def destroy(self) -> None:
        """As an engine's."""


@pytest.mark.parametrize(("room", "found"), [(0, 0), (1, 1), (2, 2), (7, 4), (100, 8)])
def test_the_largest_micro_batch_is_the_last_double_that_fits(room: int, found: int) -> None:
    from benchmarks.gpu.speed import largest_micro_batch

    engine: Any = NoMoreMemory(room)
    assert largest_micro_batch(engine, 8) == found
    assert engine.seen == [1, 1, 2, 4, 8][: len(engine.seen)]


def test_a_stage_whose_losses_rise_or_go_astray_fails(tmp_path: Path) -> None:
    record, first = Record(tmp_path / "record"), [6.0, 5.5]
    compare(record, 0, first, first)
    compare(record, 1, [6.0, 5.6], first)
    compare(record, 2, [6.0, 5.0], first)
    compare(record, 3, [6.0, math.nan], first)
    checks = json.loads((tmp_path / "record").read_text())["checks"]
    assert [check["passed"] for check in checks] == [True, True, True, True, False, False, False]


def test_no_nan_is_passed_over() -> None:
    assert math.isnan(largest([1.0, math.nan, 2.0]))
    assert largest(iter([1.0, 3.0, 2.0])) == 3.0


def section(lines: str, folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float = 60) -> dict[str, Any]:
    """What becomes of a section that consists of these lines."""
    (folder / "written_here.py").write_text("import os, subprocess, sys, time\ndef run(scale, record):\n" + lines)
    child = "import sys, benchmarks.gpu; benchmarks.gpu.__path__.append(sys.argv.pop(1)); "
    child += "import benchmarks.gpu.child as child; child.main()"
    started = subprocess.Popen

    def start(words: list[str], **options: Any) -> Any:
        return started([sys.executable, "-c", child, str(folder), *words[3:]], **options)

    with monkeypatch.context() as patched:
        patched.setattr(sections.subprocess, "Popen", start)
        return sections.run(Section("written_here:run", seconds), "cpu", seconds)


def test_a_section_that_fails_is_reported_with_what_it_did_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "    record.check('before', 1.0, 2.0)\n    record.begin('the worst')\n    raise ValueError('too bad')\n"
    found = section(lines, tmp_path, monkeypatch)
    assert found["error"] == "the worst: ValueError: too bad"
    assert not found["passed"]
    assert [check["what"] for check in found["checks"]] == ["before"]
    assert any("Traceback" in line for line in found["said"])


def test_a_failed_check_fails_its_section_and_what_is_optional_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not section("    record.check('bad', 3.0, 2.0)\n", tmp_path, monkeypatch)["passed"]
    found = section("    record.begin('more', optional=True)\n    os.abort()\n", tmp_path, monkeypatch)
    assert found["passed"]
    assert found["error"] == "more: ended by SIGABRT"


def test_a_section_that_hangs_ends_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "    other = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    lines += "    record.figures(pid=other.pid)\n    record.begin('waiting')\n    time.sleep(600)\n"
    found = section(lines, tmp_path, monkeypatch, seconds=8)
    assert found["error"] == "waiting: not done in the 8 seconds of this section"
    status = Path(f"/proc/{found['figures']['pid']}/status")
    assert not status.exists() or "zombie" in status.read_text()


def test_sections_after_one_that_fails_still_run_and_the_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def run(section: Section, device: str, seconds: float) -> dict[str, Any]:
        given.append(seconds)
        return {"passed": False}

    monkeypatch.setattr(sections, "run", run)
    assert len(list(sections.run_all(SECTIONS, "cuda", time.monotonic() + 1000))) == len(SECTIONS)
    assert given == [section.seconds for section in SECTIONS.values()]
    late = dict(sections.run_all(SECTIONS, "cuda", time.monotonic()))
    assert {found["error"] for found in late.values()} == {"no time was left"}
    assert command.SECONDS < 8 * 60


def test_without_a_gpu_it_is_one_sentence_and_exit_code_2() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-m", "benchmarks.gpu"]
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "error: torch finds no GPU here: run this where nvidia-smi lists one.\n"
    assert ended.stdout == ""


def findings(passed: bool) -> dict[str, Any]:
    check = {"what": "traj_base jp from zeros: losses of 20 steps", "found": "nan", "limit": 1e-5, "passed": passed}
    figures = {
        "parameters": 542035200,
        "rows": 16,
        "micro_batches": 2,
        "step_seconds": 0.6,
        "tokens_per_second": 109226.0,
        "mfu": 0.41,
        "peak_gigabytes": 71.3,
        "parts": {"forward": 0.15, "backward": 0.3, "optimizer": 0.1, "other": 0.05},
        "passes": {"Iberis": {"rows": 16, "tokens_per_second": 1e6, "peak_gigabytes": 60.0}},
        "kernels": [{"name": "void at::native::" + "long_name" * 20, "calls": 1280, "seconds": 0.1, "share": 0.2}],
    }
    section = {"checks": [check], "figures": {}, "seconds": 31.0, "error": "", "passed": passed}
    speed = {"checks": [], "figures": figures, "seconds": 110.0, "error": "torch.compile: late", "passed": True}
    return {"sections": {"golden": section, "d20": speed, "d12": speed}}


@pytest.mark.parametrize("passed", [False, True])
def test_the_report_fits_80_columns_and_tells_all(passed: bool) -> None:
    output = io.StringIO()
    report.show(findings(passed), Console(file=output, width=report.WIDTH, highlight=False))
    said = output.getvalue()
    assert max(map(len, said.splitlines())) <= 80
    assert ("FAILED" in said) is not passed
    for word in ("109,226", "41.0%", "542,035,200", "in part", "torch.compile: late", "nan", "1e-05", "71.3", "d12"):
        assert word in said
    assert "…" not in said


@pytest.mark.full
def test_the_whole_command_passes_on_a_cpu(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--output", str(tmp_path / "gpu.json")]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["passed"]
    assert list(found["sections"]) == list(SECTIONS)
    assert max(len(line) for line in ended.stdout.splitlines() if str(tmp_path) not in line) <= 80
    for name, checks in {"golden": 4, "zero": 3, "resume": 2}.items():
        assert len(found["sections"][name]["checks"]) == checks
