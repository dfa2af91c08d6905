"""docs/serving.md names a test for each rule; the tests are there."""

from __future__ import annotations

import ast
import re

from tests.test_house import ROOT


def test_every_test_that_the_table_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/serving.md").read_text()))
    there = {
        node.name
        for path in (ROOT / "tests/serving/api").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(named) > 50
    assert named - there == set()
