"""What an installation from a wheel has, too."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def test_every_file_of_the_package_is_installed() -> None:
    """Recipes, the card and the page are no Python: only what the build file names comes along."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert set(named) == {"megatron_iberis"}
    package = ROOT / "megatron_iberis"
    others = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".so", ".pyc")
    ]
    assert len(others) > 20, "the files were not found"
    left_out = [name for name in others if not any(fnmatch(name, pattern) for pattern in named["megatron_iberis"])]
    assert left_out == []
