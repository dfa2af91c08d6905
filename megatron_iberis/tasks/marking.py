"""How answers are marked: a letter among options, a number, a short text by its characters."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from decimal import Decimal

from megatron_iberis.tasks.numbers import find_number, written
from megatron_iberis.tasks.task import Mark, Row

_SAID = r"(?:answer|option|choice|答え|解答|正解|回答|選択肢)\W*(?:is|was|は|が)?\W*"
_LABEL = re.compile(r"^[\s*]*(?:答え|解答|正解|回答|answer)\s*(?:は|が|is)?[\s::、*]*", re.IGNORECASE)
_QUOTES = {"「": "」", "『": "』", '"': '"', "'": "'", "“": "”", "(": ")"}
_COPULA = re.compile(r"(?:です|でした|である|だ)?[\s。.!]*$")


def mark_letter(row: Row, completion: str) -> Mark:
    """1 if the completion names the right option: by its letter alone or first, after "answer", or by its text."""
    letter = _find_letter(row, unicodedata.normalize("NFKC", completion).strip())
    return Mark(float(letter is not None and letter == row.letters[row.right]), letter)


def _find_letter(row: Row, text: str) -> str | None:
    letters = "|".join(re.escape(letter) for letter in row.letters)
    alone = re.compile(rf"[\s(\[*]*({letters})(?=[)\].:,、。*\n]|\s*$)", re.IGNORECASE)
    after = re.compile(rf"(?:{_SAID})({letters})(?![A-Za-z0-9])", re.IGNORECASE)
    for match in (alone.match(text), after.search(text)):
        if match:
            return next(letter for letter in row.letters if letter.lower() == match[1].lower())
    named = [i for i, option in enumerate(row.options) if _same(option, text)]
    return row.letters[named[0]] if len(named) == 1 else None


def mark_number(row: Row, completion: str) -> Mark:
    """1 if the number that the completion comes to (numbers.py) equals the reference."""
    number = find_number(completion)
    if number is None:
        return Mark(0.0)
    return Mark(float(any(number == Decimal(right) for right in row.references)), written(number))


def mark_number_strictly(row: Row, completion: str) -> Mark:
    """As nanochat marks, to compare with published figures: what follows "#### ", commas left out, as text.

    "#### 10." and "#### 10.00" are no 10, "#### $10" is no answer.
    """
    match = re.search(r"#### (-?[0-9.,]+)", completion)
    found = match[1].replace(",", "") if match else None
    return Mark(float(found in row.references), found)


def mark_characters(row: Row, completion: str) -> Mark:
    """The best F1 of the answer's characters with those of a reference, in any order (SQuAD's, by character)."""
    best = max((character_f1(found, right), found) for found in answer_texts(completion) for right in row.references)
    return Mark(best[0], best[1] or None)


def mark_exactly(row: Row, completion: str) -> Mark:
    """1 if the answer is a reference, but for spaces, punctuation, width and case."""
    found = answer_texts(completion)
    right = [text for text in found if any(_same(text, reference) for reference in row.references)]
    return Mark(float(bool(right)), (right or found)[0] or None)


def answer_texts(completion: str) -> tuple[str, str]:
    """The answer in a completion, its first line with words, without 「答え:」; and the same without 「です。」."""
    line = next((line for line in completion.splitlines() if line.strip()), "").strip()
    line = _LABEL.sub("", line)
    return _unquoted(line), _unquoted(_COPULA.sub("", line) or line)


def _unquoted(text: str) -> str:
    return text[1:-1].strip() if len(text) > 2 and _QUOTES.get(text[0]) == text[-1] else text


def character_f1(found: str, right: str) -> float:
    """Of the characters that count (`_essence`); 1 if both have none."""
    ours, theirs = Counter(_essence(found)), Counter(_essence(right))
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total())


def _same(a: str, b: str) -> bool:
    return bool(_essence(a)) and _essence(a) == _essence(b)


def _essence(text: str) -> str:
    """NFKC, lower case, without spaces, punctuation and marks of ends."""
    text = unicodedata.normalize("NFKC", text).lower()
    return "".join(c for c in text if unicodedata.category(c)[0] not in "PZC")
