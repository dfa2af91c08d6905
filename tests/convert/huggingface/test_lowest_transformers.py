"""The lowest version of transformers that is supported runs exported models and tokenizers as the newest does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_iberis.convert.huggingface import export

ROOT = Path(__file__).parents[3]
LOWEST = Path(sys.prefix) / "transformers-lowest"  # the Makefile installs it there


@pytest.mark.full
def test_the_same_tests_pass_on_the_lowest_version(exported: Path, tmp_path: Path) -> None:
    if not LOWEST.is_dir():
        pytest.skip(f"{LOWEST} is not there: make test-full installs it")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(LOWEST), str(ROOT)]),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "IBERIS_EXPORT": str(exported),
    }
    asked = [sys.executable, "-c", "import transformers; print(transformers.__version__)"]
    version = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
    said = re.search(r"< \((\d+), (\d+)\)", (Path(export.__file__).parent / export.MODELLING).read_text())
    assert said is not None
    assert version.split(".")[:2] == list(said.groups()), "the lowest is not what the code says it is"
    tests = [f"tests/convert/huggingface/test_exported_{what}.py" for what in ("model", "tokenizer")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "[100%]" in done.stdout
