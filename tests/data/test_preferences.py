"""Pairs become documents with the right targets, and rows in which both of a pair lie side by side, once an epoch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_iberis.data.preference_rows import REFERENCE, PreferenceRows, best_fit
from megatron_iberis.data.preferences import Answer, Pair, PairReader
from megatron_iberis.errors import InputError
from megatron_iberis.tasks.preferences import Preference
from megatron_iberis.tokenizer.chat import render, render_for_completion
from tests.support.tokenizers import small_tokenizer

ASKED = {"role": "user", "content": "Where is the ferry?"}


def preference(chosen: Any, rejected: Any, *prompt: dict[str, Any], line: int = 1) -> Preference:
    return Preference(prompt or (ASKED,), chosen, rejected, f"p.jsonl:{line}")


def read(*preferences: Preference, room: int = 1000, **settings: Any) -> PairReader:
    reader = PairReader(small_tokenizer(), room, **settings)
    reader.add("p", preferences)
    return reader


def test_targets_are_what_the_last_answer_says_and_its_end_mark() -> None:
    tokenizer = small_tokenizer()
    calculated = [
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "Two."},
    ]
    prompt = (ASKED, {"role": "assistant", "content": "At sea."}, {"role": "user", "content": "How many?"})
    (pair,) = read(preference(calculated, "Three", *prompt)).pairs
    for answer, content in ((pair.chosen, calculated), (pair.rejected, "Three")):
        ids, mask = render(tokenizer, [*prompt, {"role": "assistant", "content": content}])
        start = len(render_for_completion(tokenizer, prompt))
        wanted = [i if said and n >= start else -1 for n, (i, said) in enumerate(zip(ids, mask, strict=True))]
        assert answer.ids.tolist() == ids
        assert answer.targets.tolist() == wanted[1:]
        assert answer.targets[-1] == tokenizer.specials["<|assistant_end|>"]
    said = [i for i in pair.chosen.targets.tolist() if i >= 0]
    output = tokenizer.specials["<|output_start|>"]
    assert output in pair.chosen.ids
    assert output not in said
    assert pair.targets == (len(said), len(tokenizer.encode("Three")) + 1)


def test_what_is_dropped_or_cut_is_counted_by_source() -> None:
    long, longer = "It leaves the harbour. " * 10, "It is there. " * 40
    rows = [
        preference("At sea.", "In the tree."),
        preference("At sea.", "At sea."),
        preference(long, longer),
        preference("At sea.", longer),
        preference("yes", "no", {"role": "user", "content": longer * 2}),
        preference(long + "a", long + "b"),
    ]
    reader = PairReader(small_tokenizer(), 160)
    reader.add("one", rows[:2])
    reader.add("two", rows[2:])
    one, two = reader.tallies["one"], reader.tallies["two"]
    assert (one.read, one.equal, one.too_long, one.cut, one.kept) == (2, 1, 0, 0, 1)
    assert (two.read, two.equal, two.too_long, two.cut, two.kept) == (4, 1, 1, 2, 2)
    assert [pair.number for pair in reader.pairs] == [0, 2, 3]
    whole, both, second = reader.pairs
    assert (one.tokens, one.targets) == (whole.size, sum(whole.targets))
    assert both.size == second.size == 160
    assert abs(both.chosen.said - both.rejected.said) == 0
    assert second.chosen.targets[-1] == small_tokenizer().specials["<|assistant_end|>"]
    assert str(two).startswith("4 pairs read, 1 dropped as equal, 1 as too long, 2 kept, 2 of them cut; ")
    dropped = read(*rows, room=160, over_long="drop")
    assert [pair.number for pair in dropped.pairs] == [0]
    assert dropped.tallies["p"].too_long == 4


def test_a_pair_that_cannot_be_rendered_names_its_place() -> None:
    with pytest.raises(InputError, match=r"^p\.jsonl:7: message 2 \(assistant\).*surrogate"):
        read(preference("\ud800", "b", line=7))


def test_a_hash_knows_every_token_and_which_are_targets() -> None:
    first = pair(0, 4, 3, 2)
    others = [pair(1, 4, 3, 2), pair(0, 4, 3, 2, first_id=9), pair(0, 5, 3, 2), pair(0, 4, 2, 3)]
    masked = Pair(0, "", Answer(first.chosen.ids, 4, np.array([True, False, True])), first.rejected)
    assert first.hash() == pair(1, 4, 3, 2).hash(), "the number is told beside it"
    assert len({each.hash() for each in [first, *others[1:], masked]}) == 5


def pair(number: int, prompt: int, chosen: int, rejected: int, first_id: int = 3) -> Pair:
    """Of so many tokens, all of them others."""

    def answer(said: int, first: int) -> Answer:
        ids = [*range(first_id, first_id + prompt), *range(first, first + said)]
        return Answer(np.array(ids, np.int32), prompt, np.ones(said, np.bool_))

    return Pair(number, f"p.jsonl:{number + 1}", answer(chosen, 100), answer(rejected, 200))


PAIRS = [pair(0, 2, 2, 1), pair(1, 3, 4, 2), pair(2, 1, 1, 1), pair(3, 4, 3, 3), pair(4, 2, 5, 5)]


def test_both_answers_of_a_pair_lie_side_by_side_in_a_row() -> None:
    rows = PreferenceRows(PAIRS, 14, 2)
    rows.reference = np.arange(10.0).reshape(5, 2)
    found = rows.read_in_order(0, len(rows.rows) + 1)
    seen, place = [], 0
    borders = found.cu_seqlens
    assert borders is not None
    for begin, end in pairwise(borders.tolist()):
        row, column = divmod(begin, 14)
        assert (end - 1) // 14 == row
        targets = found.targets[row, column : column + end - begin]
        number = found.more[REFERENCE][place]
        place += 1
        if (targets < 0).all():
            assert number == 0
            continue
        each = PAIRS[int(number) // 2]
        answer = each.rejected if number % 2 else each.chosen
        assert found.tokens[row, column : column + end - begin].tolist() == answer.ids[:-1].tolist()
        assert targets.tolist() == answer.targets.tolist()
        seen.append(int(number))
    assert sorted(seen) == list(range(10))
    assert all(seen[i + 1] == seen[i] + 1 for i in range(0, 10, 2)), "the preferred one comes first"
    assert place == len(found.more[REFERENCE])
    assert (found.targets[-1] == -1).all()
    assert [each for row in range(len(rows.rows)) for each in rows.pairs_in(row, 1)] == rows.pairs_in(0, 99)


def test_each_epoch_has_every_pair_once_and_ends_with_a_step() -> None:
    rows = PreferenceRows([pair(n, 2, 1, 1) for n in range(40)], 8, 16, seed=1)
    count = len(rows.rows)
    assert (count, rows.steps_per_epoch) == (20, 2)
    orders = [[rows.locate(sample) for sample in range(first, first + count)] for first in (0, 32)]
    for order in orders:
        assert sorted(place.document for places in order for place in places) == list(range(40))
    assert orders[0] != orders[1]
    last = rows.read(19, 14)
    assert [(targets >= 0).sum() for targets in last.targets] == [4] + 12 * [0] + [4]
    assert [rows.locate(sample) for sample in range(20, 32)] == [[]] * 12


def test_fewer_pairs_than_a_step_has_are_a_step_an_epoch() -> None:
    rows = PreferenceRows(PAIRS[:1], 14, 4)
    assert rows.steps_per_epoch == 1
    assert rows.read(0, 9).targets.max(axis=1).tolist() == [200, -1, -1, -1, 200, -1, -1, -1, 200]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_best_fit_leaves_nothing_out_and_fills_no_row_too_far(sizes: list[int]) -> None:
    rows = best_fit(sizes, 20)
    assert sorted(item for row in rows for item in row) == list(range(len(sizes)))
    used = sorted(sum(sizes[item] for item in row) for row in rows)
    assert used[-1] <= 20
    assert len(rows) < 2 or used[0] + used[1] > 20, "no two rows fit into one"
