"""Letters, short texts and spellings are marked by what is meant, not by how it is dressed."""

from __future__ import annotations

import pytest

from megatron_iberis.tasks import Row, open_task
from megatron_iberis.tasks.marking import character_f1, mark_characters, mark_exactly, mark_letter

CONVERSATION = ({"role": "user", "content": "?"}, {"role": "assistant", "content": "B"})
CHOICE = Row(CONVERSATION, "f:1", ("ice cream", "fire", "A cat"), ("A", "B", "C"), 1)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        *[(said, "B") for said in ("B", " B\n", "(B)", "B.", "B) fire", "**B**", "Ｂ", "B: fire", "B、です")],
        *[(said, "B") for said in ("The answer is B.", "Answer: B", "答えはBです", "正解は「B」", "option b")],
        *[(said, "B") for said in ("fire", "Fire.", "b")],
        *[("A cat", "C"), ("A big cat", None), ("Because", None), ("", None), ("D", None), ("AB", None)],
    ],
)
def test_the_letter_that_is_meant_is_found(said: str, found: str | None) -> None:
    mark = mark_letter(CHOICE, said)
    assert (mark.found, mark.score) == (found, float(found == "B"))


def test_letters_that_are_digits_are_letters() -> None:
    row = Row(CONVERSATION, "f:1", ("x", "y"), ("1", "2"), 1)
    assert mark_letter(row, "2").score == 1
    assert mark_letter(row, "The answer is 2.").score == 1
    assert mark_letter(row, "12").score == 0


SHORT = Row(CONVERSATION, "f:1", references=("東京都", "吾輩は猫である"))


@pytest.mark.parametrize(
    ("said", "f1", "exact"),
    [
        ("東京都", 1, 1),
        ("答えは東京都です。", 1, 1),
        ("\n「東京都」\n続きの話", 1, 1),
        ("吾輩は猫である", 1, 1),
        ("東京", 0.8, 0),
        ("都 京、東", 1, 0),
        ("大阪", 0, 0),
        ("", 0, 0),
        ("だ。", 0, 0),
        ("。", 0, 0),
    ],
)
def test_short_answers_are_marked_by_their_characters(said: str, f1: float, exact: float) -> None:
    assert mark_characters(SHORT, said).score == pytest.approx(f1)
    assert mark_exactly(SHORT, said).score == exact


def test_width_case_and_punctuation_do_not_count() -> None:
    assert character_f1("ＮＨＫ　ホール！", "nhkホール") == 1
    assert character_f1("aab", "abb") == pytest.approx(2 / 3)
    assert character_f1("", "。") == 1
    assert character_f1("", "a") == 0


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("{word}:{commas}", 1),
        ("{commas}", 1),
        ("The word is spelt: {dashes}.", 1),
        ("{word}", 0),
        ("{word}:{word}", 0),
        ("{word}:{commas},z", 0),
        ("", 0),
    ],
)
def test_a_spelling_is_right_when_its_letters_are(said: str, score: float, words: str) -> None:
    task = open_task("simple-spelling", root=words)
    row = task[0]
    word = row.more["word"]
    text = said.format(word=word, commas=",".join(word), dashes="-".join(word))
    assert task.mark(row, text).score == score
