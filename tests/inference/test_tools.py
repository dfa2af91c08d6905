"""The calculator gives what Python prints, to nothing but arithmetic and counting, and never takes long."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.inference.tools import LONGEST, ToolUse, calculate
from tests.support.tokenizers import small_tokenizer


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("12*3", "36"),
        (" 12 * (3 + 4) ", "84"),
        ("7/2", "3.5"),
        ("8/2", "4.0"),
        ("7//2", "3"),
        ("-7//2", "-4"),
        ("0.1+0.2", "0.30000000000000004"),
        (".5+1.", "1.5"),
        ("--3 - +2", "1"),
        ("1,234,567 + 1", "1234568"),
        ("1,234.5*2", "2469.0"),
        ("100000000000000000000*3", "300000000000000000000"),
        ("'a,b,c'.count(',')", "2"),
        ("'strawberry'.count('r')", "3"),
        ('"strawberry" .count( "rr" )', "1"),
        ("'1,000 and 2,000'.count(',0')", "2"),
        ("('Mississippi').lower().count('s')", "4"),
        ("'aAa'.upper().count('A')", "3"),
        ("'東京の東'.count('東')", "2"),
        ('"it\'s 1,5".count(",")', "1"),
        ("'aaa'.count('')", "4"),
    ],
)
def test_results(expression: str, result: str) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "1/0",
        "1//0",
        "2**10",
        "9**9**9**9",
        "1 2",
        "1, 2",
        "()",
        "1+",
        "007",
        "1_000",
        "0x10",
        "1e5",
        "1j",
        "7%2",
        "1<<99",
        "True",
        "abs(-1)",
        "2(3)",
        "__import__('os').system('x').count('a')",
        "'a'.count('a').__class__",
        "'a'.__class__.count('a')",
        "'a'.count('a', 0)",
        "'a'.count(sub='a')",
        "'a'.count(*'a')",
        "'a'.replace('a','b').count('b')",
        "'a'.count",
        "'a'",
        "'ab'*9",
        "b'a'.count(b'a')",
        "f'{1}'.count('1')",
        "[1].count(1)",
        "x.count('a')",
        r"'\x61'.count('a')",
        "1\0",
        "\ud800",
        "1\n+1",
        "lambda: 1",
        "９+１",
        "9" * 400 + ".0",
        "9" * 400 + ".0*0",
        "9" * 400 + "/0.3",
        "9" * 101,
        "(" * 300 + "1" + ")" * 300,
        "-" * 900 + "1",
        "+".join(["1"] * 400),
        "1" * (LONGEST + 1),
        "'" + "a" * LONGEST + "'.count('a')",
    ],
)
def test_what_is_no_arithmetic_has_no_result(expression: str) -> None:
    started = time.perf_counter()
    assert calculate(expression) is None
    assert time.perf_counter() - started < 0.5


numbers = st.one_of(st.integers(0, 99999).map(str), st.floats(0, 1e6).map(lambda x: f"{x:.3f}"))
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(expression=expressions)
def test_arithmetic_is_pythons(expression: str) -> None:
    try:
        wanted = str(eval(expression))
    except ArithmeticError:
        assert calculate(expression) is None
        return
    assert calculate(expression) == (wanted if wanted not in ("inf", "-inf", "nan") else None)


@settings(max_examples=200, deadline=None)
@given(expression=st.text(alphabet="0123456789+-*/(). ,'\"count", max_size=30))
def test_any_expression_is_answered_as_python_would_or_not_at_all(expression: str) -> None:
    found = calculate(expression)
    if found is not None and "," not in expression:
        assert found == str(eval(expression.strip(" ")))


@given(text=st.text(alphabet="abc, 東", max_size=12), part=st.text(alphabet="ab,東", min_size=1, max_size=2))
def test_counting_is_pythons(text: str, part: str) -> None:
    assert calculate(f"{text!r}.count({part!r})") == str(text.count(part))


def test_a_number_grows_no_longer_than_its_expression() -> None:
    started = time.perf_counter()
    for expression in ("*".join(["9999999999"] * 90), "*".join(["9" * 499] * 2), "1" + "0" * 900 + "//3*7"):
        assert calculate(expression) is None
    assert time.perf_counter() - started < 0.1


def test_any_thread_may_calculate() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(calculate, [f"{n},000*2" for n in range(1, 200)]))
    assert found == [str(n * 2000) for n in range(1, 200)]


def test_a_result_is_put_in_where_a_call_ends() -> None:
    tokenizer = small_tokenizer()
    specials = tokenizer.specials
    start, end = specials["<|python_start|>"], specials["<|python_end|>"]
    forced = [specials["<|output_start|>"], *tokenizer.encode("36"), specials["<|output_end|>"]]

    def put_in(ids: list[int]) -> list[list[int]]:
        use = ToolUse(tokenizer)
        return [use.push(token) for token in ids]

    call = [start, *tokenizer.encode("12*3"), end]
    text = tokenizer.encode("That is ")
    assert put_in([*text, *call, *text]) == [*[[]] * (len(text) + len(call) - 1), forced, *[[]] * len(text)]
    assert put_in(call + forced + call)[-1] == forced
    assert not any(put_in([start, *tokenizer.encode("1/0"), end]))
    assert not any(put_in([*tokenizer.encode("12*3"), end]))
    assert put_in([start, *tokenizer.encode("9+"), *call])[-1] == forced  # the call that was begun last
