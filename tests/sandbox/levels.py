"""The levels that this machine has, for tests that hold at each of them."""

from __future__ import annotations

from typing import Any

import pytest

from megatron_iberis.sandbox import Level, Limits, Verdict, run_tests
from megatron_iberis.sandbox.level import holds

HARD: tuple[Level, ...] = ("full", "kernel")


def at_each_hard_level(test: Any) -> Any:
    """Runs the test with `level` at each level that shuts programs in; skipped where the kernel lacks it."""
    return pytest.mark.parametrize("level", HARD)(test)


def need(level: Level) -> None:
    if not holds(level):
        pytest.skip(f"this kernel does not give the level {level}")


def run(level: Level, program: str, tests: str = "pass", **limits: Any) -> Verdict:
    need(level)
    return run_tests(program, tests, Limits(**{"seconds": 2.0, **limits}), level=level)
