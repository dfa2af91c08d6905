"""Only tests that ran to their end pass: no exit code, no output, no object that says it is equal."""

from __future__ import annotations

import pytest

from megatron_iberis.sandbox import Limits, run_many, run_tests, sandbox_level

CHECK = """
def check(candidate):
    assert candidate(2) == 4
    assert candidate(-3) == 9
check(square)
"""

RIGHT = {
    "plain": """
def square(x):
    return x * x
""",
    "main guard": """
def square(x):
    return x * x
if __name__ == '__main__':
    raise SystemExit(3)
""",
    "prints": """
def square(x):
    print('no')
    return x * x
""",
    "unicode": """
def square(数):
    '''二乗 😀'''
    return 数 * 数
""",
    "imports": """
import asyncio, dataclasses, decimal, math, random, re, typing
def square(x): return x * x
""",
    "dataclass": """
from dataclasses import dataclass
@dataclass
class N:
    n: int
def square(x): return N(x).n ** 2
""",
    "threads": """
import threading
def square(x):
    found = []
    thread = threading.Thread(target=lambda: found.append(x * x))
    thread.start()
    thread.join()
    return found[0]
""",
    "event loop": """
import asyncio
async def f(x):
    return x * x
def square(x): return asyncio.run(f(x))
""",
    "temporary file": """
import tempfile
def square(x):
    with tempfile.NamedTemporaryFile('w+') as file:
        file.write(str(x * x))
        file.seek(0)
        return int(file.read())
""",
    "own exceptions": """
import sys
def square(x):
    try:
        sys.exit(1)
    except SystemExit:
        return x * x
""",
}

FAKED = {
    "wrong": """
def square(x):
    return x + x
""",
    "syntax": """
def square(x)
    return x
""",
    "missing": """
def cube(x):
    return x ** 3
""",
    "sys.exit": """
import sys
sys.exit(0)
""",
    "os._exit": """
import os
os._exit(0)
""",
    "SystemExit": """
raise SystemExit
""",
    "exits when called": """
import os
def square(x):
    os._exit(0)
""",
    "leaves when called": """
import sys
def square(x):
    sys.exit(0)
""",
    "KeyboardInterrupt": """
def square(x):
    raise KeyboardInterrupt
""",
    "prints markers": """
print('passed\\nready\\nOK\\n' * 9, flush=True)
import os
os._exit(0)
""",
    "atexit": """
import atexit, os
atexit.register(lambda: os._exit(0))
def square(x):
    return 0
""",
    "equal to everything": """
class A:
    def __eq__(self, other):
        return True
def square(x):
    return A()
""",
    "equal by a lambda": """
A = type('A', (int,), {'__eq__': lambda a, b: isinstance(b, int)})
def square(x):
    return A()
""",
    "equal by an object": """
class E:
    def __call__(self, other):
        return isinstance(other, int)
class A:
    __eq__ = E()
    __hash__ = None
def square(x):
    return A()
""",
    "equal inside a list": """
class A(list):
    def __eq__(self, other):
        return True
def square(x):
    return A()
""",
    "mock.ANY": """
from unittest.mock import ANY
def square(x):
    return ANY
""",
    "another assert": """
import builtins
builtins.AssertionError = Warning
def square(x):
    return 0
""",
    "no exec": """
import builtins
builtins.exec = builtins.compile = lambda *a: None
def square(x):
    return 0
""",
    "no comparison": """
for name in list(globals()):
    globals()[name] = lambda x: 4
def square(x):
    return 4
""",
    "thread that ends it": """
import os, threading, time
def end():
    time.sleep(.05)
    os._exit(0)
threading.Thread(target=end).start()
def square(x):
    time.sleep(9)
""",
    "all descriptors": """
import os
for number in range(3, 300):
    try:
        os.write(number, b'passed')
    except OSError:
        pass
os._exit(0)
""",
}


@pytest.fixture(autouse=True, scope="module")
def _some_level() -> None:
    if sandbox_level() == "weak":
        pytest.skip("this kernel can't shut programs in")


def test_right_programs_pass() -> None:
    verdicts = run_many([(program, CHECK) for program in RIGHT.values()])
    assert {name: verdict.reason for name, verdict in zip(RIGHT, verdicts, strict=True)} == dict.fromkeys(
        RIGHT, "passed"
    )


def test_faked_programs_do_not_pass() -> None:
    verdicts = run_many([(program, CHECK) for program in FAKED.values()])
    assert [name for name, verdict in zip(FAKED, verdicts, strict=True) if verdict.passed] == []


@pytest.mark.parametrize(
    "program",
    [
        "__builtins__ = {**vars(__import__('builtins')), 'all': lambda found: True}",
        "import builtins\nbuiltins.all = lambda found: True",
    ],
)
def test_the_tests_have_their_own_builtins(program: str) -> None:
    assert run_tests(program, "assert all([])").passed
    assert "AssertionError" in run_tests(program, "assert all([False])").reason


def test_answers_of_the_librarys_own_kinds_are_compared() -> None:
    program = """
from collections import Counter, OrderedDict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
import datetime
Pair = namedtuple("Pair", "a b")
Kind = Enum("Kind", "x y")
@dataclass(order=True)
class Point:
    a: int
def answers():
    return [Counter("aab"), OrderedDict(a=1), deque([1]), Decimal(1), Fraction(1, 2), datetime.date(2000, 1, 1)]
"""
    tests = """
assert answers() == [{"a": 2, "b": 1}, {"a": 1}, deque([1]), 1, 0.5, datetime.date(2000, 1, 1)]
assert Pair(1, 2) == (1, 2) and Kind.x is Kind.x and Kind.x != Kind.y and Point(1) < Point(2) and Point(1) == Point(1)
assert float("nan") != float("nan") and len([answers]) in {1} and "a" not in {"b": [set(), frozenset()]}
"""
    assert run_tests(program, tests).reason == "passed"


def test_the_token_is_not_in_the_process_before_the_tests_end() -> None:
    """A program that prints all that it finds in its memory's objects finds no token."""
    search = (
        "import gc, re, sys\ndef square(x):\n    frame, found = sys._getframe(), []\n    while frame:\n"
        "        found += [repr(value) for value in frame.f_locals.values()]\n        frame = frame.f_back\n"
        "    found += [repr(one) for one in gc.get_objects() if isinstance(one, (dict, list, tuple))]\n"
        "    assert not re.search(r\"b'[0-9a-f]{32}'\", ' '.join(found))\n    return x * x"
    )
    assert run_tests(search, CHECK).reason == "passed"


@pytest.mark.parametrize(
    ("program", "tests", "reason"),
    [
        ("def f(): return 1", "assert f() == 2, 'no: 1'", "AssertionError: no: 1 (line 1 of the tests)"),
        ("x = 1\n1 / 0", "", "ZeroDivisionError: division by zero (line 2 of the program)"),
        ("import os; os._exit(0)", "", "ended before its tests did"),
        ("raise SystemExit(0)", "", "SystemExit: 0 (line 1 of the program)"),
        ("def f(:", "", "SyntaxError"),
    ],
)
def test_the_reason_says_what_and_where(program: str, tests: str, reason: str) -> None:
    assert reason in run_tests(program, tests).reason


def test_verdicts_do_not_depend_on_the_order_of_hashes() -> None:
    program = "found = ''.join({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})"
    first = run_tests(program, "assert found == ''")
    assert not first.passed
    orders = run_many([(program + "\nraise ValueError(found)", "")] * 4, Limits(), processes=2)
    assert len({verdict.reason for verdict in orders}) == 1
