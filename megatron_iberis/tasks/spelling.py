"""Words letter by letter: SimpleSpelling spells one, SpellingBee counts a letter, by hand and with the calculator.

Rows are made, not read: each is drawn by a Random of its own, so that any number of them can be had. The words of the
test rows are words of their own, chosen by a hash, which no training row holds. (nanochat drew both from the same
words with the seeds i and -(i + 1), of which Python's Random takes the absolute value: its test rows were in the
training set.)
"""

from __future__ import annotations

import random
import string
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.marking import mark_number, mark_number_strictly
from megatron_iberis.tasks.place import Place
from megatron_iberis.tasks.published import RecordTask
from megatron_iberis.tasks.records import Record, decoded
from megatron_iberis.tasks.task import Mark, Row

SIZES = {"simple-spelling": {"train": 200_000, "test": 256}, "spelling-bee": {"train": 80_000, "test": 256}}
"""Rows of each split, unless told otherwise: of training as many as the published mid-training takes."""
_HELD_OUT = 50  # one word of so many is for the test rows
_LETTER_OF_THE_WORD = 0.9
_LOWER_CASE = 0.3
_QUESTION_MARK = 0.5

_QUESTIONS = (
    "How many times does the letter {letter} occur in {word}",
    "How often is {letter} in {word}",
    "How many {letter} can you find in the word {word}",
    "Please count {letter} in {word}",
    "Count each {letter} that {word} has",
    "What number of {letter} does {word} hold",
    "Is there any {letter} in {word}, and how many",
    "If you spell {word}, how many times do you write {letter}",
    "In {word} there are how many {letter}",
    "The word {word}: how many {letter}",
    "I need the count of the letter {letter} for {word}",
    "Say how many {letter} the word {word} is written with",
    "{word}: number of {letter}",
    "How many of the letters of {word} are {letter}",
    "{word}には{letter}がいくつ入っていますか",
    "{word}という単語に{letter}は何回出てきますか",
    "{word}の中の{letter}を数えてください",
    "{letter}は{word}に何個ありますか",
    "{word}のつづりに{letter}は何文字含まれますか",
)


@dataclass(frozen=True)
class Words:
    """The rows' drawings: records of a word and, of SpellingBee, a letter and how it is asked for."""

    words: tuple[str, ...]
    path: Path
    size: int
    letters: bool
    seed: str

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        draw = random.Random(f"{self.seed} {index}")
        word = draw.choice(self.words)
        value: dict[str, Any] = {"word": word}
        if self.letters:
            own = draw.random() < _LETTER_OF_THE_WORD
            value["letter"] = draw.choice(word if own else string.ascii_lowercase)
            value["question"] = _question(draw, word, value["letter"])
        return Record(value, f"{self.path}: made row {index + 1}")


def _question(draw: random.Random, word: str, letter: str) -> str:
    """As people ask: with capitals or without, quotes or none, often without the mark."""
    form = draw.choice(_QUESTIONS)
    if draw.random() < _LOWER_CASE:
        form = form.lower()
    quotes = [draw.choice(("", "'", '"')) for _ in range(2)]
    asked = form.format(letter=quotes[0] + letter + quotes[0], word=quotes[1] + word + quotes[1])
    return asked + "?" if draw.random() < _QUESTION_MARK else asked


def _read_spelling(record: Record) -> Row:
    word = record.text("word")
    spelt = f"{word}:{','.join(word)}"
    messages = ({"role": "user", "content": f"Spell the word: {word}"}, {"role": "assistant", "content": spelt})
    return Row(messages, record.where, references=(spelt,), more={"question": messages[0]["content"], "word": word})


def _read_bee(record: Record) -> Row:
    word, letter, question = record.text("word"), record.text("letter"), record.text("question")
    count = word.count(letter)
    seen, lines = 0, []
    for number, character in enumerate(word, 1):  # no spaces: " a" and "a" are different tokens
        seen += character == letter
        lines.append(f"{number}:{character}" + (f" match, {seen} so far" if character == letter else ""))
    by_hand = (
        f"To count '{letter}' in '{word}', let me spell it:\n{word}:{','.join(word)}\n\n"
        f"Going through it letter by letter:\n{chr(10).join(lines)}\n\nThat makes {seen}. Python can check this:\n\n"
    )
    content = [
        {"type": "text", "text": by_hand},
        {"type": "python", "text": f"'{word}'.count('{letter}')"},
        {"type": "python_output", "text": str(count)},
        {"type": "text", "text": f"\n\nPython says {count} too, so the answer is:\n\n#### {count}"},
    ]
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": content})
    more = {"question": question, "word": word, "letter": letter}
    return Row(messages, record.where, references=(str(count),), more=more)


def mark_spelling(row: Row, completion: str) -> Mark:
    """1 if the word is spelt letter by letter, whatever stands between the letters, or with nothing before them."""
    found = completion.strip()
    after = found.rpartition(":")[2]
    letters = "".join(c for c in after if c.isalpha()).lower()
    right = letters == row.more["word"] and len(after.strip()) > len(letters) > 1
    return Mark(float(right or found == row.references[0]), found or None)


_PLACE = Place("words", {"words": ("words_alpha.txt",)}, ("spellingbee_words",))


def _open(name: str, letters: bool, split: str, root: str, size: int) -> RecordTask:
    sizes = SIZES[name]
    if split not in sizes:
        raise InputError(f"{name} has no split {split!r}: choose among {', '.join(sizes)}.")
    if size < 0:
        raise InputError(f"{name} can't have {size} rows: set its size to 1 or more, or to 0 for the usual one.")
    path = _PLACE.find(name, "words", root)[0]
    size = size or sizes[split]
    words = Words(_words(path, split == "test"), path, size, letters, f"{name} {split}")
    read, marker = (_read_bee, mark_number) if letters else (_read_spelling, mark_spelling)
    other = {"gsm8k_strict": mark_number_strictly} if letters else {}
    return RecordTask(name, "en", "generation", 0.0, words, read, range(size), marker, other)


def _words(path: Path, held_out: bool) -> tuple[str, ...]:
    """The words of a split: a file's, one a line, that are letters from a to z alone."""
    words = sorted({line.strip() for line in decoded(path.read_bytes(), path).splitlines()} - {""})
    known = [word for word in words if word.isascii() and word.isalpha() and word.islower()]
    chosen = tuple(word for word in known if (zlib.crc32(word.encode()) % _HELD_OUT == 0) == held_out)
    if not chosen:
        raise InputError(f"{path} has too few words in lower case, one a line: use a longer list.")
    return chosen


def open_spelling(split: Literal["train", "test", ""] = "", root: str = "", size: int = 0) -> RecordTask:
    """SimpleSpelling; size: how many rows."""
    return _open("simple-spelling", False, split or "test", root, size)


def open_spelling_bee(split: Literal["train", "test", ""] = "", root: str = "", size: int = 0) -> RecordTask:
    """SpellingBee; size: how many rows."""
    return _open("spelling-bee", True, split or "test", root, size)


TASKS = {"simple-spelling": open_spelling, "spelling-bee": open_spelling_bee}
