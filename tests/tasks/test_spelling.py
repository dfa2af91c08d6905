"""Spelling rows are right, the same each time, and those of the test are never trained on, whatever the sizes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.inference.tools import calculate
from megatron_iberis.tasks import Row, Task, open_task

from .fixtures import WORDS, write_text

NAMES = ["simple-spelling", "spelling-bee"]


def rows(task: Task) -> list[Row]:
    return [task[i] for i in range(len(task))]


def shared(train: Sequence[str], test: Sequence[str]) -> int:
    return sum(word in set(train) for word in test)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("train_size", "test_size"), [(300, 256), (256, 3000), (20_000, 256)])
def test_no_word_of_the_test_is_in_training(name: str, train_size: int, test_size: int, words: str) -> None:
    train, test = (
        [row.more["word"] for row in rows(open_task(name, split, words, size=size))]
        for split, size in (("train", train_size), ("test", test_size))
    )
    assert len(train) == train_size
    assert len(test) == test_size
    assert shared(train, test) == 0


def test_upstreams_seeds_put_the_whole_test_into_training() -> None:
    """Why the words are apart: seeds i and -(i + 1) are the same to Random, but for the sign."""
    known = WORDS.split("\n")
    train = [random.Random(i).choice(known) for i in range(300)]
    test = [random.Random(-(i + 1)).choice(known) for i in range(256)]
    assert shared(train, test) == 256
    assert train[1:257] == test


@pytest.mark.parametrize("name", NAMES)
def test_rows_depend_on_nothing_but_their_number(name: str, words: str) -> None:
    few, many = (open_task(name, "train", words, size=size) for size in (5, 50))
    backwards = [many[i] for i in reversed(range(50))]
    assert rows(few) == rows(many)[:5]
    assert backwards[::-1] == rows(many)
    assert len({row.messages[0]["content"] for row in backwards}) > 25


def test_usual_sizes_are_those_of_the_published_training(words: str) -> None:
    assert [len(open_task(name, "train", words)) for name in NAMES] == [200_000, 80_000]
    assert [len(open_task(name, root=words)) for name in NAMES] == [256, 256]


def test_a_word_is_spelt_with_commas_and_no_spaces(words: str) -> None:
    row = open_task("simple-spelling", "train", words)[3]
    word = row.more["word"]
    assert row.messages[1]["content"] == f"{word}:{','.join(word)}"


def test_letters_are_counted_by_hand_by_the_calculator_and_right(words: str) -> None:
    counts = set()
    for row in rows(open_task("spelling-bee", "train", words, size=400)):
        word, letter = row.more["word"], row.more["letter"]
        by_hand, call, output, answer = row.messages[1]["content"]
        count = str(word.count(letter))
        assert all(f"\n{number}:{character}" in by_hand["text"] for number, character in enumerate(word, 1))
        assert by_hand["text"].count(" so far") == int(count)
        assert (call["type"], output["type"]) == ("python", "python_output")
        assert calculate(call["text"]) == output["text"] == count
        assert answer["text"].endswith(f"#### {count}")
        assert row.references == (count,)
        assert word in row.messages[0]["content"]
        counts.add(count)
    assert {"0", "1", "2"} <= counts


def test_lists_that_hold_too_little_are_refused(tmp_path: object) -> None:
    for content, says in (("", "too few words"), ("ONE\nTwo\nthr33\n", "too few words")):
        write_text(tmp_path / "words_alpha.txt", content)  # type: ignore[operator]
        with pytest.raises(InputError, match=says):
            open_task("spelling-bee", "train", str(tmp_path))
