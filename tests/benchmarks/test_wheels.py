"""`make wheels`: what training needs, and no more, for a machine with torch and without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import wheels
from megatron_iberis.errors import InputError


def test_what_training_imports_is_among_the_wheels() -> None:
    found = wheels.requirements()
    wanted = {"deepspeed", "megatron-core", "tensorboard", "safetensors", "sentencepiece", "tyro", "rich", "orjson"}
    assert wanted | {"zstandard", "psutil", "xxhash", "tomli-w", "ninja", "pydantic-core"} <= found.keys()


def test_what_is_there_already_or_not_needed_for_training_is_left_out() -> None:
    left_out = {"torch", "numpy", "setuptools", "triton", "sympy", "typing-extensions", "megatron-iberis"}
    left_out |= {"datasets", "pyarrow", "pandas", "huggingface-hub", "grpcio", "werkzeug", "pillow", "pytest"}
    assert not left_out & wheels.requirements().keys()


def test_a_package_that_is_missing_here_is_named() -> None:
    with pytest.raises(InputError, match="not-a-package is not installed here"):
        wheels.needs(["not-a-package"], ())


def test_more_than_the_limit_is_refused_and_the_largest_are_named(tmp_path: Path) -> None:
    for name, megabytes in (("small", 1), ("large", 30), ("larger", 31)):
        with (tmp_path / f"{name}-1.0-py3-none-any.whl").open("wb") as file:
            file.truncate(megabytes * 2**20)
    with pytest.raises(InputError, match=r"62\.0 MiB and may have 50 MiB; the largest are larger 31\.0, large 30\.0"):
        wheels.check_size(tmp_path)
    (tmp_path / "large-1.0-py3-none-any.whl").unlink()
    wheels.check_size(tmp_path)


def test_wheels_of_an_earlier_time_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    gathered, folder = tmp_path / "gathered", tmp_path / "wheels"
    for path in (gathered, folder):
        path.mkdir()
    (gathered / "new-2.0-py3-none-any.whl").touch()
    for name in ("new-1.0-py3-none-any.whl", "notes.txt"):
        (folder / name).touch()
    wheels.replace(gathered, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["new-2.0-py3-none-any.whl", "notes.txt"]


def test_too_much_ends_with_one_sentence_and_leaves_the_folder_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(folder: Path, pinned: dict[str, str], source: Path) -> None:
        folder.mkdir()
        with (folder / "huge-1.0-py3-none-any.whl").open("wb") as file:
            file.truncate(wheels.LIMIT + 1)

    monkeypatch.setattr(wheels, "build", build)
    monkeypatch.setattr(sys, "argv", ["wheels", "--folder", str(tmp_path / "wheels")])
    assert wheels.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the wheels have 50.0 MiB")
    assert said.count("\n") == 1
    assert not (tmp_path / "wheels").exists()
