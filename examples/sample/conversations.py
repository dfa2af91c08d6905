"""Conversations for the demo's mid-training and finetuning: short questions with right answers, in both languages.

Beside them questions to evaluate with, which no conversation holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from examples.sample import english, japanese
from examples.sample.vocabulary import SPELLING, WORDS
from megatron_iberis.storage.atomic import write_atomic

Exchange = tuple[str, Any]
"""What the user says, and the content of the assistant's answer."""

ROWS = 1200
"""Conversations of each language."""
QUESTIONS = 150
"""To evaluate with, of each language."""
TURNS = (1, 1, 1, 2, 3)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _calculated(before: str, expression: str, after: str) -> list[dict[str, str]]:
    """An answer that calls the calculator. after: with {} for its result."""
    result = str(eval(expression, {"__builtins__": {}}))
    return [
        {"type": "text", "text": before},
        {"type": "python", "text": expression},
        {"type": "python_output", "text": result},
        {"type": "text", "text": after.format(result)},
    ]


def _sum_en(draw: Random) -> Exchange:
    a, b = draw.randint(0, 20), draw.randint(0, 20)
    question = draw.choice(["What is {} plus {}?", "How much is {} and {}?", "Add {} and {}."]).format(a, b)
    return question, f"{a} plus {b} is {a + b}."


def _product_en(draw: Random) -> Exchange:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return f"What is {a} times {b}?", _calculated(f"{a} times {b}: ", f"{a}*{b}", " So it is {}.")


def _spelling_en(draw: Random) -> Exchange:
    word = draw.choice(SPELLING)
    return draw.choice(["How do you spell {}?", "Spell the word {}."]).format(word), "-".join(word)


def _letters_en(draw: Random) -> Exchange:
    word = draw.choice(SPELLING)
    letter = draw.choice(word)
    return f"How many {letter} are in {word}?", _calculated("", f"'{word}'.count('{letter}')", " There are {}.")


def _number_en(draw: Random) -> Exchange:
    number = draw.randint(1, 999)
    return f"Write {number} in words.", english.words(number)


def _weekday_en(draw: Random) -> Exchange:
    day, later = draw.randrange(7), draw.randint(1, 6)
    question = f"If today is {_DAYS[day]}, what day is it in {later} day{'s' if later > 1 else ''}?"
    return question, f"It is {_DAYS[(day + later) % 7]}."


def _word_en(draw: Random) -> Exchange:
    kanji, kana, word = draw.choice(WORDS)
    return f'What is "{word}" in Japanese?', f"It is {kanji}, read {kana}."


def _who_en(draw: Random) -> Exchange:
    question = draw.choice(["Who are you?", "What is your name?", "What are you?"])
    return question, "I am Saint Iberis, a small language model that speaks Japanese and English."


def _sum_ja(draw: Random) -> Exchange:
    a, b = draw.randint(0, 20), draw.randint(0, 20)
    if draw.random() < 0.5:
        a_, b_, c_ = (japanese.kanji(n) for n in (a, b, a + b))
        return f"{a_}たす{b_}はいくつですか。", f"{a_}たす{b_}は{c_}です。"
    return f"{a}たす{b}はいくつですか。", f"{a}たす{b}は{a + b}です。"


def _product_ja(draw: Random) -> Exchange:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return f"{a}かける{b}はいくつですか。", _calculated(f"{a}かける{b}は、", f"{a}*{b}", "、答えは{}です。")


def _reading_ja(draw: Random) -> Exchange:
    kanji, kana, _ = draw.choice(WORDS)
    return f"「{kanji}」は何と読みますか。", f"「{kana}」と読みます。"


def _beats_ja(draw: Random) -> Exchange:
    _, kana, _ = draw.choice(WORDS)
    beats = japanese.beats(kana)
    return f"「{kana}」は何拍ですか。", f"{'・'.join(beats)}で、{len(beats)}拍です。"


def _word_ja(draw: Random) -> Exchange:
    kanji, _, word = draw.choice(WORDS)
    return f"「{kanji}」は英語で何と言いますか。", f"{word}と言います。"


def _weekday_ja(draw: Random) -> Exchange:
    day, later = draw.randrange(7), draw.randint(1, 6)
    days = japanese.WEEKDAYS
    return f"今日が{days[day]}曜日なら、{later}日後は何曜日ですか。", f"{days[(day + later) % 7]}曜日です。"


def _who_ja(draw: Random) -> Exchange:
    question = draw.choice(["あなたは誰ですか。", "お名前は何ですか。", "自己紹介をしてください。"])
    return question, "私はセイント・イベリス、日本語と英語を話す小さな言語モデルです。"


EXCHANGES: Mapping[str, Sequence[Callable[[Random], Exchange]]] = {
    "en": (_sum_en, _product_en, _spelling_en, _letters_en, _number_en, _weekday_en, _word_en, _who_en),
    "ja": (_sum_ja, _sum_ja, _product_ja, _reading_ja, _beats_ja, _word_ja, _weekday_ja, _who_ja),
}


def conversation(language: str, draw: Random) -> list[dict[str, Any]]:
    """One of a few turns."""
    messages = []
    for _ in range(draw.choice(TURNS)):
        question, answer = draw.choice(EXCHANGES[language])(draw)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def questions(language: str, asked: set[str], draw: Random) -> list[dict[str, Any]]:
    """`QUESTIONS` conversations of one turn each; no question comes twice, or is among those asked."""
    found: dict[str, Any] = {}
    while len(found) < QUESTIONS:
        question, answer = draw.choice(EXCHANGES[language])(draw)
        if question not in asked:
            found[question] = answer
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in found.items()
    ]


def write_conversations(folder: Path, seed: int = 0) -> dict[str, int]:
    """Writes en.jsonl and ja.jsonl, each whole or not at all, and questions-en.jsonl and questions-ja.jsonl.

    Returns the number of bytes of each of the first two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for language in EXCHANGES:
        draw = Random(f"{seed} {language}")
        rows = [{"messages": conversation(language, draw)} for _ in range(ROWS)]
        sizes[language] = _write(folder / f"{language}.jsonl", rows)
        asked = {message["content"] for row in rows for message in row["messages"] if message["role"] == "user"}
        _write(
            folder / f"questions-{language}.jsonl", questions(language, asked, Random(f"{seed} {language} questions"))
        )
    return sizes


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    write_atomic(path, content)
    return len(content)
