"""The number that an answer comes to is found whatever it is dressed in, exactly, and never is not-a-number."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.tasks.marking import mark_characters, mark_number, mark_number_strictly
from megatron_iberis.tasks.numbers import find_number, written
from megatron_iberis.tasks.task import Row

ANSWERS = [
    # Reports on other projects: each of these was marked wrong, or could not be read.
    ("#### $10.00", "10"),
    ("#### 10.", "10"),
    ("72個、です", "72"),
    ("１，０００円", "1000"),
    ("答えは-5。2024年", "-5"),
    ("#### 1,0", "1"),
    ("答えは１８です。", "18"),
    ("It is 7, .", "7"),
    ("$29.00, .00", "0"),
    # "####" first, wherever it stands
    ("He has 3.\n#### 12\nThat was 2024.", "12"),
    ("#### -3", "-3"),
    ("#### 1,234,567 yen", "1234567"),
    ("####18", "18"),
    ("#### 答え: 12個", "12"),
    ("#### −5", "-5"),
    ("#### 十八", "18"),
    ("#### Step 1: add\n3 + 4 = 7\nThe answer is 7.", "7"),
    ("Answer: 4\n#### nothing", "4"),
    # then what is called the answer
    ("2日で 3 + 4 = 7 個なので、答えは7個です。明日は8日です。", "7"),
    ("答え：\n１２", "12"),
    ("答えは「-1,200.50」です。", "-1200.5"),
    ("The answer is 18 dollars for 2 days.", "18"),
    ("The answer is 3 + 4 = 7. Next, 8.", "7"),
    ("The final answer is **1,234.50**. It took 3 steps.", "1234.5"),
    ("The answer is 3. No: the answer is 5. I am 99 % sure.", "5"),
    ("To answer 3 questions he needs 5", "5"),
    (r"So \boxed{42} of 50.", "42"),
    # then the last number
    ("He pays $-5", "-5"),
    ("He owes -$5", "-5"),
    ("10-5", "5"),
    ("from 5 - 3 apples", "3"),
    ("H2O and CO2 weigh 18", "18"),
    ("18 H2O", "18"),
    ("10 m²", "10"),
    ("x1 = 5", "5"),
    ("0.50", "0.5"),
    ("．５", "0.5"),
    ("-0", "0"),
    ("007", "7"),
    ("10 %", "10"),
    ("1,234,56", "1234"),
    # Japanese
    ("7万ドル", "70000"),
    ("1万5千円", "15000"),
    ("3億2,000万円", "320000000"),
    ("1.5万人", "15000"),
    ("十八", "18"),
    ("答えは十八個です", "18"),
    ("二〇二四年", "2024"),
    ("百二十円", "120"),
    ("三千五百万円です", "35000000"),
    ("マイナス五です", "-5"),
    ("一緒に十分な量を", None),
    ("二人で3個", "3"),
    # nothing
    ("", None),
    ("no number", None),
    ("####", None),
    ("nan inf", None),
    ("9" * 5000, None),
    ("9" * 5000 + " or 7", "7"),
]


@pytest.mark.parametrize(("text", "number"), ANSWERS)
def test_the_number_of_an_answer_is_found(text: str, number: str | None) -> None:
    found = find_number(text)
    assert (None if found is None else written(found)) == number


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("0123456789,.-+$¥#= \n答えはanswer is:万千億十一二〇１，．。個²½"), max_size=60))
def test_any_text_has_a_finite_number_or_none(text: str) -> None:
    found = find_number(text)
    assert found is None or (found.is_finite() and Decimal(written(found)) == found)


@pytest.mark.parametrize(
    "piece", ["答え:", "9,", "-", "1.", "####", "#### 答え", "一", "十万", "$", "answer is ", " "]
)
def test_a_text_that_repeats_itself_is_read_quickly(piece: str) -> None:
    """As an untrained model writes: what a regular expression could take minutes for."""
    began = time.perf_counter()
    find_number(piece * 5000)
    mark_number_strictly(row("1"), piece * 5000)
    mark_characters(row("1"), piece * 5000)
    assert time.perf_counter() - began < 5


@settings(max_examples=200, deadline=None)
@given(
    st.decimals(-(10**15), 10**15, allow_nan=False, places=3),
    st.sampled_from(["#### {}", "答えは{}です。2024年", "so {} dollars.", "The answer is ${}.00x"[:-4] + "."]),
    st.booleans(),
)
def test_any_decimal_is_read_exactly(number: Decimal, form: str, full_width: bool) -> None:
    text = form.format(f"{number:,f}")
    if full_width:
        text = text.translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789,."})
    assert find_number(text) == number


def row(*references: str) -> Row:
    return Row(
        ({"role": "user", "content": "?"}, {"role": "assistant", "content": "x"}), "f:1", references=references
    )


def test_marks_compare_numbers_and_not_their_texts() -> None:
    for said in ("#### 10", "#### 10.00", "#### $10", "It is 10.", "答えは１０個"):
        assert mark_number(row("10"), said).score == 1
    assert mark_number(row("10"), "#### 10.01").score == 0
    assert mark_number(row("70000"), "7万ドル").score == 1
    mark = mark_number(row("10"), "nothing")
    assert (mark.score, mark.found) == (0, None)
    assert mark_number(row("10"), "#### 1,234.50").found == "1234.5"


@pytest.mark.parametrize(
    ("said", "score", "found"),
    [
        ("#### 10", 1, "10"),
        ("#### 1,0", 1, "10"),
        ("#### 10.00", 0, "10.00"),
        ("#### 10.", 0, "10."),
        ("#### $10", 0, None),
        ("It is 10", 0, None),
        ("####10", 0, None),
    ],
)
def test_the_strict_mark_is_upstreams(said: str, score: int, found: str | None) -> None:
    mark = mark_number_strictly(row("10"), said)
    assert (mark.score, mark.found) == (score, found)
