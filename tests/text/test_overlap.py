"""Items of evaluation sets are found in texts, wherever and however they stand there, and nothing else is."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.task import Row
from megatron_iberis.text.overlap.counting import Line, Overlap, count_overlaps, document_lines
from megatron_iberis.text.overlap.items import EvaluationItems, Item, file_items, items_of
from megatron_iberis.text.overlap.near_copies import NearCopies
from megatron_iberis.text.overlap.windows import LENGTHS, Language
from megatron_iberis.text.reading.inputs import find_inputs
from megatron_iberis.text.reading.records import Tally

QUESTION = "A robe takes two bolts of blue fiber and half that much white fiber, so how many bolts does it take?"
PASSAGE = "梅雨とは、北海道と小笠原諸島を除く日本、朝鮮半島南部などにおいて見られる、雨の多い時期のことである。"
FILLER = " ".join(f"word{i}" for i in range(40))


def index(*texts: str, language: Language = "en") -> EvaluationItems:
    items = EvaluationItems()
    items.add([Item("set", f"eval.jsonl:{i}", (text,)) for i, text in enumerate(texts, 1)], language)
    return items


def pairs(items: EvaluationItems, *texts: str) -> list[tuple[int, int]]:
    return sorted((found.text, found.item) for found in items.find(texts))


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        f"{FILLER} {QUESTION} {FILLER}",
        f"Q: {QUESTION.upper()}",
        QUESTION.replace(" ", "\n\n* "),
        QUESTION.replace(",", " --").replace("?", "!"),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in QUESTION),  # full width
        " ".join(QUESTION.split()[3:]) + " in all",
        "Ａ ｒｏｂｅ" + QUESTION[6:],
    ],
)
def test_an_english_item_is_found_however_it_stands_there(text: str) -> None:
    assert pairs(index(QUESTION), FILLER, text) == [(1, 0)]


@pytest.mark.parametrize(
    "text",
    [
        PASSAGE,
        f"日本の気候。{PASSAGE}そして夏が来る。",
        PASSAGE.replace("、", "，").replace("。", "\n"),
        unicodedata.normalize("NFD", PASSAGE),
        PASSAGE[8:45],
        "　".join(PASSAGE),
    ],
)
def test_a_japanese_item_is_found_however_it_stands_there(text: str) -> None:
    assert pairs(index(PASSAGE, language="ja"), "梅の木がある。", text) == [(1, 0)]


def test_a_shorter_run_is_no_item() -> None:
    words = QUESTION.replace(",", "").split()
    assert pairs(index(QUESTION), " ".join(words[:12]) + " " + FILLER) == []
    assert pairs(index(QUESTION), " ".join(words[:13]) + " " + FILLER) == [(0, 0)]
    assert pairs(index(PASSAGE, language="ja"), PASSAGE[:30]) == []  # with its comma, 29 letters
    assert pairs(index(PASSAGE, language="ja"), PASSAGE[:34]) == [(0, 0)]


def test_a_short_item_is_looked_for_as_a_whole_and_a_shorter_one_not_at_all() -> None:
    items = index("What is at the center of our solar system?", "What is the color of snow?")
    assert items.short == {1}
    assert pairs(items, "Ask: what is at the center of our solar system, then?", "What is the color of snow?") == [
        (0, 0)
    ]
    assert pairs(items, "What is at the center of our solar wind?") == []


def test_no_run_reaches_from_one_text_into_the_next() -> None:
    words = QUESTION.split()
    assert pairs(index(QUESTION), " ".join(words[:10]), " ".join(words[10:])) == []


def test_what_many_items_of_a_set_begin_with_is_their_form_and_no_item() -> None:
    form = "Read the passage carefully and then answer the question below with one of the letters given. "
    items = index(*(f"{form} Number {i} {' '.join(f'own{i}x{j}' for j in range(13))}" for i in range(20)))
    own = " ".join(f"own7x{j}" for j in range(13))
    assert pairs(items, form, f"{form} something else", f"here {own} there") == [(2, 7)]
    assert pairs(index(*[form + str(i) for i in range(3)]), form) == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_same_is_found_as_by_comparing_runs_one_by_one(language: Language) -> None:
    """In texts of two words and parts of items, cut anywhere; the reference compares tuples of units."""
    draw = Random(5)
    units = ["red", "blue"] if language == "en" else ["赤", "青"]
    lengths = LENGTHS[language]

    def text(most: int) -> list[str]:
        return [draw.choice(units) for _ in range(draw.randrange(most))]

    def runs(words: list[str], length: int) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}

    def part(words: list[str]) -> list[str]:
        start = draw.randrange(len(words) + 1)
        return words[start : start + draw.randrange(40)]

    own = [text(60) for _ in range(30)]
    texts = [text(60) + part(draw.choice(own)) + text(60) for _ in range(300)]
    join = (" " if language == "en" else "").join
    items = index(*map(join, own), language=language)
    known: dict[tuple[str, ...], set[int]] = {}
    for number, words in enumerate(own):
        if fitting := [length for length in lengths if length <= len(words)]:
            for run in runs(words, max(fitting)):
                known.setdefault(run, set()).add(number)
    known = {run: numbers for run, numbers in known.items() if len(numbers) <= 10}
    expected = {
        (i, item)
        for i, words in enumerate(texts)
        for length in lengths
        for run in runs(words, length)
        for item in known.get(run, ())
    }
    assert len(texts) < len(expected) < len(texts) * len(own) or language == "ja"
    assert len(expected) > 10
    assert set(pairs(items, *map(join, texts))) == expected
    assert items.short == set(range(len(own))) - {n for numbers in known.values() for n in numbers}


def test_near_copies_are_found_and_others_are_not() -> None:
    near = NearCopies([Item("set", "1", (QUESTION,)), Item("set", "2", ("主に子ども向けの、絵のある本は何？",))])
    changed = QUESTION.replace("blue", "grey")
    found = near.find([changed, "How many bolts of silk?", "主に子ども向けの、絵のある本は何？？", FILLER, ""])
    assert [(each.text, each.item) for each in found] == [(0, 0), (2, 1)]
    assert list(NearCopies([]).find([QUESTION])) == []


def test_items_are_the_question_without_what_asks_for_the_letter() -> None:
    message = {"role": "user", "content": f"{QUESTION}\n- one=A\n- two=B\n\nAnswer with the letter."}
    answer = {"role": "assistant", "content": "A"}
    rows = [
        Row((message, answer), "a:1", more={"question": QUESTION}),
        Row((message, answer), "a:2", more={"question": "誰？", "passage": PASSAGE}),
        Row((message, answer), "a:3", ("he", "she"), right=1, more={"before": "It was ", "after": " who left."}),
        Row((message, answer), "a:4"),
    ]
    texts = [item.texts for item in items_of("set", rows)]
    assert texts == [(QUESTION,), (PASSAGE, "誰？"), ("It was she who left.",), (message["content"],)]


def test_sources_are_counted_row_by_row_as_they_come() -> None:
    items = index(QUESTION, "Nothing of this one, which is as long as the other, will be found in any row there is")
    told: list[Overlap] = []
    kept: list[str] = []

    def lines() -> Iterator[Line]:
        for number in range(400):
            texts = [FILLER * 20, QUESTION] if number % 100 == 7 else [FILLER * 20]
            yield Line(f"a.jsonl:{number}", texts, b"")
        assert len(kept) > 100, "rows were held to the end"

    count = count_overlaps(lines(), items, None, told.append, lambda line: kept.append(line.where))
    assert (count.lines, count.held, count.near_only) == (400, 4, 0)
    assert (count.sets["set"].lines, count.sets["set"].items) == (4, {0})
    assert [(each.line.where, each.item.where, each.how) for each in told] == [
        (f"a.jsonl:{number}", "eval.jsonl:1", "runs") for number in (7, 107, 207, 307)
    ]
    assert told[0].shared in QUESTION.lower().replace(",", "") or told[0].shared in QUESTION.lower()
    assert len(kept) == 396
    near = count_overlaps([Line("a:1", [QUESTION.replace("blue", "grey")], b"")], index(QUESTION[:30]), None)
    assert near.held == 0


def test_documents_stay_as_they_stand_in_their_file(tmp_path: Path) -> None:
    whole = '{"text": "ひとつ", "source":  "a"}'
    file = tmp_path / "a.jsonl"
    file.write_text(f'{whole}\nno json\n{{"text": ""}}\n\n{{"text": "two"}}')
    tally = Tally()
    lines = list(document_lines(find_inputs([str(file)]), "text", tally))
    assert (tally.read, tally.empty, tally.num_rejected) == (4, 1, 1)
    assert [(line.where, line.texts, line.record.decode()) for line in lines] == [
        (f"{file}:1", ["ひとつ"], whole),
        (f"{file}:5", ["two"], '{"text": "two"}'),
    ]
    with pytest.raises(InputError, match="no document could be used"):
        list(document_lines(find_inputs([str(file)]), "body", Tally()))


def test_items_of_any_file_of_rows(tmp_path: Path) -> None:
    file = tmp_path / "core.jsonl"
    file.write_text("".join(json.dumps({"query": text}) + "\n" for text in (QUESTION, PASSAGE)))
    assert [item.texts for item in file_items("core", file, "query")] == [(QUESTION,), (PASSAGE,)]
    with pytest.raises(InputError, match="has no 'question'"):
        file_items("core", file, "question")
    with pytest.raises(InputError, match="there is no file"):
        file_items("core", tmp_path / "none.jsonl", "query")
