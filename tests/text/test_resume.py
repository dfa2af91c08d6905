"""Whenever a run is stopped, the same command with --resume gives the bytes of a run that was not."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.storage.work_folder import WorkFolder
from megatron_iberis.text import preprocess as preprocess_module
from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.reading import decompression

from .conftest import ROOT, Command, assert_user_error, records, write_jsonl

# preprocess.py, saving after every batch: otherwise only runs of minutes would have anything to resume.
OFTEN = """
import runpy, sys
from megatron_iberis.text import preprocess
preprocess.SAVE_SECONDS = 0.0
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def write_input(folder: Path, times: int, count: int = 500) -> None:
    """Two files with duplicates and faults in them."""
    folder.mkdir()
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=5)) for _ in range(500)]
    lines = [{"text": f"{record['text']} {' '.join(draw.choices(words, k=50))}"} for record in records(count)]
    content = write_jsonl(folder / "a.jsonl", lines[: count * 3 // 5]).read_bytes() + b'nothing\n{"text": ""}\n'
    (folder / "a.jsonl").write_bytes(content * times)
    write_jsonl(folder / "b.jsonl", lines[count * 2 // 5 :])


def outputs(folder: Path, name: str) -> dict[str, bytes]:
    """What a run has left, by name behind its prefix; the manifest, which names the prefix, without it."""
    return {
        path.name.removeprefix(name): path.read_bytes().replace(str(folder / name).encode(), b"")
        for path in folder.glob(f"{name}[._]*")
    }


def test_random_kills_of_the_real_command_change_no_byte(tmp_path: Path, tokenizer_folder: Path) -> None:
    """Nor does another number of workers, before a kill and after it."""
    write_input(tmp_path / "in", 10)

    def command(name: str, workers: int, *more: str) -> list[str]:
        return [
            *(sys.executable, "-c", OFTEN, str(ROOT / "data_tools/preprocess.py"), "--input", str(tmp_path / "in")),
            *("--tokenizer", str(tokenizer_folder), "--output-prefix", str(tmp_path / name), "--shuffle", "7"),
            *("--dedup", "exact", "--val-fraction", "0.2", "--workers", str(workers), *more),
        ]

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    durations = {}
    for workers in 1, 2:
        started = time.monotonic()
        subprocess.run(command(f"whole{workers}", workers), env=environment, check=True, capture_output=True)
        durations[workers] = time.monotonic() - started
    draw = random.Random(1)
    kills = 0
    while kills < 4:
        workers = (1, 2)[kills % 2]
        resume = command("killed", workers, "--resume")
        run = subprocess.Popen(resume, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(draw.uniform(0.3, 1.0) * durations[workers])
        kills += run.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        if run.wait() == 0:
            for path in tmp_path.glob("killed_*"):  # it was quicker than we: once more
                path.unlink()
    subprocess.run(command("killed", 1, "--resume"), env=environment, check=True, capture_output=True)
    whole, *others = (outputs(tmp_path, name) for name in ("whole1", "whole2", "killed"))
    for other in others:
        assert without_workers(other) == without_workers(whole)


def without_workers(found: dict[str, bytes]) -> dict[str, bytes]:
    """The manifest tells their number."""
    return {name: re.sub(rb'"workers": \d', b"", content) for name, content in found.items()}


class Killed(BaseException):
    """Stands for kill -9 in the middle of a step: nothing catches it, nothing is tidied up."""


@contextlib.contextmanager
def killed_at(event: int) -> Iterator[list[int]]:
    """Raises Killed at the `event`-th sync, renaming, removal or write in the block; gives their number so far."""
    seen = [0]
    with pytest.MonkeyPatch.context() as patch:
        tampered = [(os, "fsync"), (os, "replace"), (os, "unlink"), (os, "truncate"), (WorkFolder, "append")]
        for owner, name in tampered:
            original = getattr(owner, name)

            def step(*arguments: Any, original: Any = original, **options: Any) -> Any:
                seen[0] += 1
                if seen[0] == event:
                    raise Killed
                return original(*arguments, **options)

            patch.setattr(owner, name, step)
        patch.setattr(WorkFolder, "close", lambda work: work._lock.close())
        with contextlib.suppress(Killed):
            yield seen


@pytest.mark.parametrize("finishing", [{}, {"dedup": "exact"}, {"dedup": "minhash", "shuffle": 3}])
def test_a_kill_at_any_step_changes_no_byte(
    finishing: dict[str, Any], tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "BLOCK", 5_000)
    monkeypatch.setattr(preprocess_module, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # it is about killed processes, not about power
    write_input(tmp_path / "in", 1, 150)

    def run(name: str, resume: bool = False) -> None:
        prefix = str(tmp_path / name)
        options = {"val_fraction": 0.2, "resume": resume, **finishing}
        preprocess(PreprocessConfig([str(tmp_path / "in")], str(tokenizer_folder), prefix, **options))

    run("whole")
    whole = outputs(tmp_path, "whole")
    with killed_at(-1) as seen:
        run("killed")
    shutil.rmtree(tmp_path / "killed.partial")  # a kill just before that
    steps = range(1, seen[0] + 1)
    for step in (*steps[:6], *steps[6:-12:17], *steps[-12:]):
        for path in tmp_path.glob("killed_*"):
            path.unlink()
        with killed_at(step):
            run("killed")
        run("killed", resume=True)
        assert outputs(tmp_path, "killed") == whole, step


def test_after_a_full_disk_a_run_can_be_resumed(command: Command, tmp_path: Path, tokenizer_folder: Path) -> None:
    write_input(tmp_path / "in", 20)
    arguments = ("preprocess", "--input", "in", "--tokenizer", tokenizer_folder, "--shuffle", 1, "--output-prefix")
    assert command(*arguments, "whole").returncode == 0
    size = (tmp_path / "whole_text_document.bin").stat().st_size
    full = command(*arguments, "full", before=f"ulimit -f {size // 1024 - 1}")
    assert_user_error(full, "free space, then give the same command with --resume")
    assert command(*arguments, "full", "--resume").returncode == 0
    assert (tmp_path / "full_text_document.bin").read_bytes() == (tmp_path / "whole_text_document.bin").read_bytes()
    assert not (tmp_path / "full.partial").exists()


@pytest.fixture
def stopped(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """stopped(...) runs to a fault in the second file, at which it stops; the first one has been read and saved."""
    monkeypatch.setattr(preprocess_module, "SAVE_SECONDS", -1.0)
    write_jsonl(tmp_path / "a.jsonl", records(20))
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "good"}\nnothing\n{"text": "last"}\n')

    def start(**options: Any) -> Any:
        files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
        return preprocess(PreprocessConfig(files, str(tokenizer_folder), str(tmp_path / "out"), **options))

    with pytest.raises(ValueError, match=r"invalid JSON: .*b\.jsonl:2.*--resume continues from there"):
        start(on_error="stop")
    return start


def test_a_run_is_resumed_with_a_corrected_file(stopped: Any, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "good"}\n{"text": "mended"}\n{"text": "last"}\n')
    assert stopped(on_error="stop", resume=True).total.documents == 23


def test_resuming_with_anything_else_is_refused(stopped: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"was begun with another min_chars \(0, not 3\).*without --resume"):
        stopped(resume=True, min_chars=3)
    write_jsonl(tmp_path / "a.jsonl", records(19))
    with pytest.raises(ValueError, match=r"a\.jsonl was changed since it was read"):
        stopped(resume=True)
    (tmp_path / "out.partial/documents").write_bytes(b"")
    with pytest.raises(ValueError, match="documents has lost what was written: start again without --resume"):
        stopped(resume=True)
    (tmp_path / "out.partial/journal.json").write_bytes(b"[")
    with pytest.raises(ValueError, match="is damaged"):
        stopped(resume=True)
    assert stopped().total.documents == 21
    assert not (tmp_path / "out.partial").exists()


def test_the_other_side_of_an_earlier_split_goes_and_a_file_of_its_own_stays(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    write_jsonl(tmp_path / "a.jsonl", records(20))

    def run(name: str, **options: Any) -> None:
        config = PreprocessConfig([str(tmp_path / "a.jsonl")], str(tokenizer_folder), str(tmp_path / name), **options)
        preprocess(config)

    run("out", val_fraction=0.5)
    assert (tmp_path / "out_val_text_document.bin").exists()
    run("out")
    assert not list(tmp_path.glob("out_val*"))
    run("out_val")
    run("out")
    assert (tmp_path / "out_val_text_document.bin").exists()


def test_a_final_name_that_cannot_be_written_is_found_out_before_the_work(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    write_jsonl(tmp_path / "a.jsonl", records(20))
    (tmp_path / "out_text_document.idx").mkdir()
    for name, sentence in (("out", "is a folder: choose another name"), ("x" * 240, "too long")):
        config = PreprocessConfig([str(tmp_path / "a.jsonl")], str(tokenizer_folder), str(tmp_path / name))
        with pytest.raises(ValueError, match=sentence):
            preprocess(config)
    assert not list(tmp_path.glob("*.partial"))


def test_without_resume_what_an_earlier_run_left_is_removed(stopped: Any, tmp_path: Path) -> None:
    assert (tmp_path / "out.partial").exists()
    stopped()
    assert sorted(path.name for path in tmp_path.glob("out*")) == [
        "out.rejects.jsonl",
        *(f"out_text_document.{kind}" for kind in ("bin", "idx", "json")),
    ]


def test_two_runs_cannot_write_the_same_files(tmp_path: Path) -> None:
    work = WorkFolder(str(tmp_path / "out"), {}, resume=False)
    try:
        with pytest.raises(ValueError, match=r"another run is writing .*out"):
            WorkFolder(str(tmp_path / "out"), {}, resume=True)
    finally:
        work.close()
    WorkFolder(str(tmp_path / "out"), {}, resume=True).close()
    assert not (tmp_path / "out.partial").exists()
