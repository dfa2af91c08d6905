"""The number that an answer comes to, read out of a text in English or Japanese, as an exact decimal.

1. After "####", where GSM8K's answers stand.
2. Else after 「答え」, "the answer is" or \\boxed{, the last of them that is followed by a number; in a sentence with
   an equals sign, what stands after the last one.
3. Else the last number of the text.

Full-width forms are read as what they stand for (NFKC). Commas separate only groups of three digits. Signs, a
currency before and a unit behind are understood, also 万 and 億, and numbers in kanji (十八, 二〇二四) where there
are no digits.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Context, Decimal

LONGEST = 100
"""Digits; what has more is no number."""
_MOST_MARKERS = 20  # that are looked at, from the end: a text that repeats one for ever is no more work
_EXACT = Context(prec=4 * LONGEST)

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_CURRENCY = r"[$¥€£₩]"
# A minus after a digit, a letter or a bracket that closes subtracts; letters before a digit are a name (H2O, x1).
_SIGN = rf"(?:(?<![\w)\]%])(?P<minus>-))?(?:{_CURRENCY} ?)?(?P<inner>-)?"
_MYRIADS = "万億兆"
_NUMBER = re.compile(rf"(?<![A-Za-z_\d.])(?<!\d,){_SIGN}(?P<size>{_DIGITS}(?:[千{_MYRIADS}](?:{_DIGITS})?)*)")
_KANJI_DIGITS = "〇一二三四五六七八九"
_KANJI = re.compile(rf"(?P<minus>マイナス)?(?P<size>[{_KANJI_DIGITS}十百千{_MYRIADS}]+)")
# What may follow a number in kanji: without that, 一緒 or 十分な would be one.
_KANJI_END = re.compile(
    r"$|[\s。、.,!?)」』*}%]|です|でした|だ|個|人|本|枚|つ|匹|頭|台|冊|杯|回|歳|円|ドル|セント|年|月|日|時間|分間|キロ|メートル"
)
_UNITS = {"十": 10, "百": 100, "千": 1000}
_LARGE = {"万": 10**4, "億": 10**8, "兆": 10**12}

_HASHES = re.compile(r"####[ \t]*(?:(?:the )?(?:final )?answer|答え|解答)?(?: is|は)?[ \t:=*]*", re.IGNORECASE)
_MARKER = re.compile(
    r"(?:答え|解答|正解|回答|答)[ \t]*(?:は|が|:|=|、|\n)|\banswer\b\**[ \t]*(?:is|was|equals|will be|would be|:|=)"
    r"|\\boxed\{",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[。\n]|\. ")
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹]+")


def find_number(text: str) -> Decimal | None:
    """The number that the text comes to; None if there is none in it."""
    text = _plain(text)
    for hashes in _HASHES.finditer(text):
        line = text[hashes.end() :].split("\n", 1)[0]
        if (number := _at_start(line)) is not None:
            return number
    for marker in list(_MARKER.finditer(text))[: -_MOST_MARKERS - 1 : -1]:
        rest = text[marker.end() :].lstrip(" \t\n:=*、")
        end = _SENTENCE_END.search(rest)
        sentence = rest[: end.start()] if end else rest
        before, equals, after = sentence.rpartition("=")
        if equals and (number := _first(after)) is not None:
            return number
        if (number := _first(before + equals + after)) is not None:
            return number
    return _last(text)


def written(number: Decimal) -> str:
    """Without an exponent, a sign of zero, or zeros behind the point: what is equal is written alike."""
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _plain(text: str) -> str:
    text = _SUPERSCRIPTS.sub("", text)  # 10 m² is 10, not 2
    text = unicodedata.normalize("NFKC", text)
    return text.replace("\u2212", "-").replace("零", "〇")


def _at_start(line: str) -> Decimal | None:
    """The number with which the line begins."""
    match = _NUMBER.match(line)
    if match:
        return _value(match)
    kanji = _KANJI.match(line)
    return _kanji_value(kanji) if kanji and _KANJI_END.match(line, kanji.end()) else None


def _first(sentence: str) -> Decimal | None:
    for match in _NUMBER.finditer(sentence):
        if (number := _value(match)) is not None:
            return number
    for match in _KANJI.finditer(sentence):
        if _KANJI_END.match(sentence, match.end()):
            return _kanji_value(match)
    return None


def _last(text: str) -> Decimal | None:
    for match in reversed(list(_NUMBER.finditer(text))):
        if (number := _value(match)) is not None:
            return number
    for match in reversed(list(_KANJI.finditer(text))):
        if _KANJI_END.match(text, match.end()):
            return _kanji_value(match)
    return None


def _value(match: re.Match[str]) -> Decimal | None:
    if sum(c.isdigit() for c in match["size"]) > LONGEST:
        return None
    number = _sized(match["size"].replace(",", ""))
    return _EXACT.minus(number) if match["minus"] or match["inner"] else number


def _kanji_value(match: re.Match[str]) -> Decimal | None:
    if len(match["size"]) > LONGEST:
        return None
    number = _sized(match["size"])
    return _EXACT.minus(number) if match["minus"] else number


def _sized(text: str) -> Decimal:
    """Of digits and units in turn: 3億2000万 or 千二百."""
    text = "".join(str(_KANJI_DIGITS.index(c)) if c in _KANJI_DIGITS else c for c in text)
    total = section = Decimal(0)
    for digits, unit in re.findall(rf"([\d.]*)([十百千{_MYRIADS}]?)", text):
        if not digits and not unit:
            continue
        value = Decimal(digits) if digits else None
        if unit in _LARGE:
            section = _EXACT.add(section, value or Decimal(0))
            total = _EXACT.add(total, _EXACT.multiply(section or Decimal(1), Decimal(_LARGE[unit])))
            section = Decimal(0)
        else:
            scale = Decimal(_UNITS.get(unit, 1))
            section = _EXACT.add(section, _EXACT.multiply(Decimal(1) if value is None else value, scale))
    return _EXACT.add(total, section)
