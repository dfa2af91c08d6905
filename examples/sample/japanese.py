"""Japanese numerals and their readings, counters, dates, eras and kana."""

from __future__ import annotations

import datetime

_DIGITS = "〇一二三四五六七八九"
_DIGIT_KANA = ("ぜろ", "いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう")
_HUNDREDS = {1: "ひゃく", 3: "さんびゃく", 6: "ろっぴゃく", 8: "はっぴゃく"}
_THOUSANDS = {1: "せん", 3: "さんぜん", 8: "はっせん"}
_SCALES = ((10**12, "兆", "ちょう"), (10**8, "億", "おく"), (10**4, "万", "まん"))

_COUNTERS = {
    "本": "いっぽん にほん さんぼん よんほん ごほん ろっぽん ななほん はっぽん きゅうほん じゅっぽん",
    "匹": "いっぴき にひき さんびき よんひき ごひき ろっぴき ななひき はっぴき きゅうひき じゅっぴき",
    "杯": "いっぱい にはい さんばい よんはい ごはい ろっぱい ななはい はっぱい きゅうはい じゅっぱい",
    "分": "いっぷん にふん さんぷん よんぷん ごふん ろっぷん ななふん はっぷん きゅうふん じゅっぷん",
    "個": "いっこ にこ さんこ よんこ ごこ ろっこ ななこ はっこ きゅうこ じゅっこ",
    "回": "いっかい にかい さんかい よんかい ごかい ろっかい ななかい はっかい きゅうかい じゅっかい",
    "階": "いっかい にかい さんがい よんかい ごかい ろっかい ななかい はっかい きゅうかい じゅっかい",
    "軒": "いっけん にけん さんげん よんけん ごけん ろっけん ななけん はっけん きゅうけん じゅっけん",
    "曲": "いっきょく にきょく さんきょく よんきょく ごきょく ろっきょく ななきょく はっきょく"
    " きゅうきょく じゅっきょく",
    "冊": "いっさつ にさつ さんさつ よんさつ ごさつ ろくさつ ななさつ はっさつ きゅうさつ じゅっさつ",
    "歳": "いっさい にさい さんさい よんさい ごさい ろくさい ななさい はっさい きゅうさい じゅっさい",
    "足": "いっそく にそく さんぞく よんそく ごそく ろくそく ななそく はっそく きゅうそく じゅっそく",
    "頭": "いっとう にとう さんとう よんとう ごとう ろくとう ななとう はっとう きゅうとう じゅっとう",
    "着": "いっちゃく にちゃく さんちゃく よんちゃく ごちゃく ろくちゃく ななちゃく はっちゃく"
    " きゅうちゃく じゅっちゃく",
    "通": "いっつう につう さんつう よんつう ごつう ろくつう ななつう はっつう きゅうつう じゅっつう",
    "枚": "いちまい にまい さんまい よんまい ごまい ろくまい ななまい はちまい きゅうまい じゅうまい",
    "台": "いちだい にだい さんだい よんだい ごだい ろくだい ななだい はちだい きゅうだい じゅうだい",
    "円": "いちえん にえん さんえん よえん ごえん ろくえん ななえん はちえん きゅうえん じゅうえん",
    "年": "いちねん にねん さんねん よねん ごねん ろくねん ななねん はちねん きゅうねん じゅうねん",
    "人": "いちにん ににん さんにん よにん ごにん ろくにん しちにん はちにん きゅうにん じゅうにん",
}
"""The readings of one to ten of each counter; larger numbers end in the same way."""
COUNTERS = tuple(_COUNTERS)
_SPECIAL = {("人", 1): "ひとり", ("人", 2): "ふたり", ("歳", 20): "はたち"}
_HUNDRED_SHORT = {
    "本": "ぽん",
    "匹": "ぴき",
    "杯": "ぱい",
    "分": "ぷん",
    "個": "こ",
    "回": "かい",
    "階": "かい",
    "軒": "けん",
    "曲": "きょく",
}
"""Counters before which a hundred is ひゃっ, and their own sound there."""

THINGS = ("ひとつ", "ふたつ", "みっつ", "よっつ", "いつつ", "むっつ", "ななつ", "やっつ", "ここのつ", "とお")
_DAYS = {
    **dict(
        enumerate(
            ["ついたち", "ふつか", "みっか", "よっか", "いつか", "むいか", "なのか", "ようか", "ここのか", "とおか"],
            start=1,
        )
    ),
    14: "じゅうよっか",
    17: "じゅうしちにち",
    19: "じゅうくにち",
    20: "はつか",
    24: "にじゅうよっか",
    27: "にじゅうしちにち",
    29: "にじゅうくにち",
}
_MONTHS = ["いち", "に", "さん", "し", "ご", "ろく", "しち", "はち", "く", "じゅう", "じゅういち", "じゅうに"]
_HOURS = ["れい", "いち", "に", "さん", "よ", "ご", "ろく", "しち", "はち", "く"]

WEEKDAYS = "月火水木金土日"
WEEKDAYS_KANA = ("げつようび", "かようび", "すいようび", "もくようび", "きんようび", "どようび", "にちようび")
ZODIAC = "子丑寅卯辰巳午未申酉戌亥"
ZODIAC_KANA = ["ね", "うし", "とら", "う", "たつ", "み", "うま", "ひつじ", "さる", "とり", "いぬ", "い"]

ERAS = (
    ("令和", "れいわ", "Reiwa", datetime.date(2019, 5, 1)),
    ("平成", "へいせい", "Heisei", datetime.date(1989, 1, 8)),
    ("昭和", "しょうわ", "Showa", datetime.date(1926, 12, 25)),
    ("大正", "たいしょう", "Taisho", datetime.date(1912, 7, 30)),
    ("明治", "めいじ", "Meiji", datetime.date(1868, 1, 25)),
)
"""Name, reading, Latin letters and first day. Use no date before 1873: the calendar was another."""


def kanji(number: int) -> str:
    """`number` in Chinese numerals: 1205 is 千二百五, 10000000 is 一千万."""
    if number == 0:
        return "零"
    text = ""
    for scale, sign, _ in _SCALES:
        count, number = divmod(number, scale)
        if count:
            group = _group_kanji(count)
            text += ("一" + group if group.startswith("千") else group) + sign
    return text + _group_kanji(number)


def _group_kanji(number: int) -> str:
    text = ""
    for unit, sign in ((1000, "千"), (100, "百"), (10, "十")):
        digit, number = divmod(number, unit)
        if digit:
            text += ("" if digit == 1 else _DIGITS[digit]) + sign
    return text + (_DIGITS[number] if number else "")


def kana(number: int) -> str:
    """The reading of `number`: 3800 is さんぜんはっぴゃく."""
    if number == 0:
        return "ぜろ"
    text = ""
    for scale, sign, sound in _SCALES:
        count, number = divmod(number, scale)
        if not count:
            continue
        group = _group_kana(count)
        if group.startswith("せん"):
            group = "いっ" + group
        if sign == "兆":
            for long, short in (("いち", "いっ"), ("はち", "はっ"), ("じゅう", "じゅっ")):
                if group.endswith(long):
                    group = group[: -len(long)] + short
        text += group + sound
    return text + _group_kana(number)


def _group_kana(number: int) -> str:
    thousands, number = divmod(number, 1000)
    hundreds, number = divmod(number, 100)
    tens, ones = divmod(number, 10)
    text = ""
    if thousands:
        text += _THOUSANDS.get(thousands, _DIGIT_KANA[thousands] + "せん")
    if hundreds:
        text += _HUNDREDS.get(hundreds, _DIGIT_KANA[hundreds] + "ひゃく")
    if tens:
        text += ("" if tens == 1 else _DIGIT_KANA[tens]) + "じゅう"
    return text + (_DIGIT_KANA[ones] if ones else "")


def counted(number: int, counter: str) -> str:
    """The reading of `number` with `counter`: (1, "本") is いっぽん, (24, "人") is にじゅうよにん."""
    if (counter, number) in _SPECIAL:
        return _SPECIAL[counter, number]
    table = _COUNTERS[counter].split()
    ones = number % 10
    if ones:
        return (kana(number - ones) if number > ones else "") + table[ones - 1]
    if number % 100:
        tens = kana(number).removesuffix("じゅう")
        return tens + table[9]
    bare = table[1].removeprefix("に")
    if number % 1000:
        hundreds = kana(number)
        if counter in _HUNDRED_SHORT:
            return hundreds.removesuffix("く") + "っ" + _HUNDRED_SHORT[counter]
        return hundreds + bare
    voiced = {"本": "ぼん", "匹": "びき", "杯": "ばい", "足": "ぞく", "軒": "げん", "階": "がい", "分": "ぷん"}
    return kana(number) + voiced.get(counter, bare)


def month(number: int) -> str:
    """The reading of a month's name: 4 is しがつ."""
    return _MONTHS[number - 1] + "がつ"


def day(number: int) -> str:
    """The reading of a day of the month: 20 is はつか."""
    return _DAYS.get(number) or kana(number) + "にち"


def hour(number: int) -> str:
    """The reading of an hour, 0 to 24: 4 is よじ, 19 is じゅうくじ."""
    if number == 0:
        return "れいじ"
    tens, ones = divmod(number, 10)
    return (kana(tens * 10) if tens else "") + (_HOURS[ones] if ones else "") + "じ"


def era(date: datetime.date) -> tuple[str, str, str, int]:
    """The era of `date` (from 1873): its name, reading, name in Latin letters, and the year in it."""
    for name, reading, latin, first in ERAS:
        if date >= first:
            return name, reading, latin, date.year - first.year + 1
    raise ValueError(f"{date} is before the eras known here")


def era_year(name: str, year: int) -> str:
    """An era's year as it is written: 令和元年, 昭和三十九年."""
    return f"{name}{'元' if year == 1 else kanji(year)}年"


def zodiac(year: int) -> tuple[str, str]:
    """The animal of a year and its reading: 2024 is 辰, たつ."""
    index = (year - 4) % 12
    return ZODIAC[index], ZODIAC_KANA[index]


def katakana(text: str) -> str:
    """Hiragana as katakana."""
    return "".join(chr(ord(c) + 0x60) if "ぁ" <= c <= "ゖ" else c for c in text)


def beats(text: str) -> list[str]:
    """A reading cut in beats (morae): しゃしん is しゃ, し, ん."""
    result: list[str] = []
    for c in text:
        if c in "ゃゅょ" and result:
            result[-1] += c
        else:
            result.append(c)
    return result
