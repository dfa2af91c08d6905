"""Japanese exercises: each function draws numbers or words and returns one or two lines, always right."""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Callable, Mapping
from random import Random

from examples.sample import arithmetic_ja, japanese
from examples.sample.japanese import counted, kana, kanji
from examples.sample.vocabulary import COUNTED_JA, NAMES_JA, WORDS

Exercise = Callable[[Random], str]


def _date(rng: Random, first: int = 1873, last: int = 2035) -> datetime.date:
    start = datetime.date(first, 1, 1)
    return start + datetime.timedelta(rng.randrange((datetime.date(last, 12, 31) - start).days + 1))


def _long(date: datetime.date) -> str:
    return f"{date.year}年{date.month}月{date.day}日"


def _weekday(date: datetime.date) -> str:
    return japanese.WEEKDAYS[date.weekday()] + "曜日"


def _era(date: datetime.date) -> str:
    name, _, _, year = japanese.era(date)
    return japanese.era_year(name, year)


# 暦


def weekday(rng: Random) -> str:
    date = _date(rng)
    reading = japanese.WEEKDAYS_KANA[date.weekday()]
    return rng.choice(
        [
            f"{_long(date)}は{_weekday(date)}。",
            f"{_long(date)}は何曜日ですか。――{_weekday(date)}（{reading}）です。",
            f"{_era(date)}{kanji(date.month)}月{kanji(date.day)}日は{_weekday(date)}にあたる。",
        ]
    )


def to_era(rng: Random) -> str:
    date = _date(rng)
    name, reading, _, year = japanese.era(date)
    digits, which = ("元", "最初の年") if year == 1 else (str(year), f"{kanji(year)}年目")
    return rng.choice(
        [
            f"西暦{_long(date)}は、和暦では{name}{digits}年{date.month}月{date.day}日。",
            f"{_era(date)}{kanji(date.month)}月{kanji(date.day)}日を西暦に直すと、{_long(date)}。",
            f"{_long(date)}の元号は{name}（{reading}）で、その{which}にあたる。",
        ]
    )


def later(rng: Random) -> str:
    date, days = _date(rng), rng.randint(5, 200)
    end = date + datetime.timedelta(days)
    return rng.choice(
        [
            f"{_long(date)}（{_weekday(date)[0]}）の{days}日後は、{_long(end)}（{_weekday(end)[0]}）。",
            f"{_long(end)}から{days}日さかのぼると、{_long(date)}の{_weekday(date)}になる。",
        ]
    )


def leap_year(rng: Random) -> str:
    year = rng.choice([rng.randint(1600, 2400), rng.randint(16, 24) * 100])
    if year % 400 == 0:
        return f"{year}年は400で割り切れるので、うるう年です。"
    if year % 100 == 0:
        return f"{year}年は100で割り切れますが400では割り切れないので、平年です。"
    if year % 4 == 0:
        return f"{year}年は4で割り切れて100では割り切れないので、うるう年です。二月は二十九日まであります。"
    return f"{year}年は4で割ると{year % 4}余るので、平年です。一年は三百六十五日です。"


def animal(rng: Random) -> str:
    year = rng.randint(1873, 2035)
    sign, reading = japanese.zodiac(year)
    return rng.choice(
        [
            f"{year}年の干支は{sign}（{reading}）。次の{sign}年は{year + 12}年。",
            f"{year}年生まれの人は{reading}どし。{year - 12}年生まれの人も同じです。",
        ]
    )


def day_reading(rng: Random) -> str:
    date = _date(rng)
    year = counted(date.year, "年")
    reading = japanese.month(date.month) + japanese.day(date.day)
    return rng.choice(
        [
            f"{kanji(date.month)}月{kanji(date.day)}日は「{reading}」と読む。",
            f"{date.month}月{date.day}日（{reading}）、{_weekday(date)}。{date.year}年の暦より。",
            f"{date.year}年（{year}）の{date.month}月{date.day}日は、{reading}の{_weekday(date)}。",
        ]
    )


def month_table(rng: Random) -> str:
    year, month, day = rng.randint(1950, 2035), rng.randint(1, 12), rng.randint(0, 6)
    days = [week[day] for week in calendar.monthcalendar(year, month) if week[day]]
    name = japanese.WEEKDAYS[day] + "曜日"
    if rng.random() < 0.5:
        return f"{year}年{month}月の{name}は、{'、'.join(map(str, days))}日の{len(days)}回。"
    index = rng.randrange(len(days))
    return f"{year}年{month}月の第{kanji(index + 1)}{name}は、{days[index]}日（{japanese.day(days[index])}）。"


def age(rng: Random) -> str:
    name, born = rng.choice(NAMES_JA), _date(rng, 1930, 2015)
    date = _date(rng, born.year + 5, born.year + 70)
    turning = date.year - born.year
    years = turning - ((date.month, date.day) < (born.month, born.day))
    return rng.choice(
        [
            f"{_long(born)}生まれの{name}さんは、{_long(date)}には{years}歳（{counted(years, '歳')}）。",
            f"{_era(born)}{kanji(born.month)}月生まれの{name}さんは、{date.year}年の誕生日で{turning}歳。",
        ]
    )


def clock(rng: Random) -> str:
    hour, minute = rng.randrange(24), rng.randint(1, 59)
    half, sound = ("午前", "ごぜん") if hour < 12 else ("午後", "ごご")
    reading = japanese.hour(hour % 12) + counted(minute, "分")
    return rng.choice(
        [
            f"{hour}時{minute}分は{half}{hour % 12}時{minute}分、{sound}{reading}と読みます。",
            f"時計の針が{half}{kanji(hour % 12)}時{kanji(minute)}分を指しています。「{reading}」です。",
        ]
    )


# 数え方


def counter(rng: Random) -> str:
    unit = rng.choice(japanese.COUNTERS)
    number = rng.randint(1, 100)
    return rng.choice(
        [
            f"{kanji(number)}{unit}は「{counted(number, unit)}」と読みます。",
            f"{number}{unit}（{counted(number, unit)}）",
            f"「{counted(number, unit)}」を漢字で書くと{kanji(number)}{unit}。",
        ]
    )


def counter_table(rng: Random) -> str:
    unit = rng.choice(japanese.COUNTERS)
    start = rng.randint(1, 60)
    return f"「{unit}」で数えると、" + "、".join(counted(start + i, unit) for i in range(rng.randint(5, 8))) + "。"


def counted_thing(rng: Random) -> str:
    thing, unit = rng.choice(COUNTED_JA)
    number = rng.randint(1, 60)
    reading = counted(number, unit)
    verb = "いる" if unit in "匹人頭" else "ある"
    return rng.choice(
        [
            f"{thing}は「{unit}」で数えます。{number}{unit}なら{reading}です。",
            f"{thing}が{kanji(number)}{unit}（{reading}）。",
            f"{thing}が{number}{unit}{verb}とき、声に出すと「{reading}」。",
        ]
    )


def things(rng: Random) -> str:
    number = rng.randint(1, 9)
    return f"{'、'.join(japanese.THINGS[:number])}と数えて、次は{japanese.THINGS[number]}。" + rng.choice(
        ["", "昔ながらの数え方です。", "指を折って数えましょう。"]
    )


def large(rng: Random) -> str:
    number = rng.randrange(10 ** rng.randint(2, 9))
    return rng.choice(
        [
            f"{number}は{kanji(number)}、{kana(number)}と読む。",
            f"{kanji(number)}（{kana(number)}）を数字で書くと{number:,}。",
            f"「{kana(number)}」は{number}のこと。",
        ]
    )


def yen(rng: Random) -> str:
    number = rng.randint(1, 30000)
    return rng.choice(
        [
            f"{number:,}円は、{counted(number, '円')}。",
            f"値札には{number}円とあるので、「{counted(number, '円')}です」と答えます。",
        ]
    )


def upward(rng: Random) -> str:
    start = rng.choice([rng.randint(1, 120), rng.randint(1, 98) * 100 - 3])
    shown = "、".join(kana(start + i) for i in range(6))
    return rng.choice([f"順に数えると、{shown}。", f"{start}から六つ数えます。{shown}。"])


def hundreds(rng: Random) -> str:
    step = rng.choice([100, 100, 1000, 200, 300, 500])
    start = step * rng.randint(1, 20)
    return (
        f"{kanji(step)}ずつ："
        + "、".join(f"{kanji(start + step * i)}（{kana(start + step * i)}）" for i in range(4))
        + "。"
    )


def downward(rng: Random) -> str:
    start = rng.randint(10, 300)
    shown = "、".join(kanji(start - i) for i in range(8))
    return rng.choice([f"逆に数えると、{shown}。", f"{kanji(start)}から一つずつ減らす。{shown}。"])


def places(rng: Random) -> str:
    number = rng.randint(1000, 99999)
    names = "万千百十一"[5 - len(str(number)) :]
    digits = list(zip(str(number), names, strict=True))
    digit, name = rng.choice(digits)
    return rng.choice(
        [
            f"{number}は、" + "、".join(f"{name}の位が{digit}" for digit, name in digits) + "です。",
            f"{number}の{name}の位の数字は{digit}。",
        ]
    )


def binary(rng: Random) -> str:
    number = rng.randint(3, 255)
    parts = "＋".join(str(1 << i) for i in reversed(range(8)) if number >> i & 1)
    return rng.choice(
        [
            f"{number}を二進法で表すと{number:b}（{parts}）。",
            f"二進法の{number:b}は、{parts}だから、十進法では{number}。",
        ]
    )


# かなと言葉

_VOICED = "がぎぐげござじずぜぞだぢづでどばびぶべぼぱぴぷぺぽ"
_SMALL = {"っ": "つ", "ゃ": "や", "ゅ": "ゆ", "ょ": "よ"}


def _plain(c: str) -> str:
    return _SMALL.get(c, c)


def reading(rng: Random) -> str:
    word, sound, _ = rng.choice(WORDS)
    return rng.choice(
        [
            f"「{word}」は「{sound}」と読みます。",
            f"{word}、ひらがなで{sound}、カタカナで{japanese.katakana(sound)}。",
            f"「{sound}」を漢字で書くと「{word}」です。",
            f"{word}の読み方は？　{'・'.join(sound)}。",
        ]
    )


def reading_pair(rng: Random) -> str:
    words = rng.sample(WORDS, 3)
    return rng.choice(
        [
            "と".join(f"{word}（{sound}）" for word, sound, _ in words) + "を、声に出して読みましょう。",
            f"{'、'.join(word for word, _, _ in words)}の読みは、順に{'、'.join(sound for _, sound, _ in words)}。",
        ]
    )


def kana_count(rng: Random) -> str:
    word, sound, _ = rng.choice(WORDS)
    beats = japanese.beats(sound)
    count = kanji(len(sound))
    if len(beats) == len(sound):
        return rng.choice(
            [
                f"「{sound}」（{word}）は、かな{count}文字。一文字ずつ言うと、{'、'.join(sound)}。",
                f"「{'」「'.join(sound)}」をつなぐと、{word}の読みになる。",
            ]
        )
    shown = f"{'・'.join(beats)}の{kanji(len(beats))}拍"
    return f"「{sound}」（{word}）は、かなで{count}文字、拍で数えると{shown}。"


def backwards(rng: Random) -> str:
    word, sound, _ = rng.choice([w for w in WORDS if len(w[1]) >= 2 and not set(w[1]) & set(_SMALL)])
    return f"{word}の「{sound}」を逆から読むと「{sound[::-1]}」。"


def gojuon(rng: Random) -> str:
    chosen = rng.sample([entry for entry in WORDS if not set(entry[1]) & set(_VOICED)], rng.randint(3, 5))
    sounds = list(dict.fromkeys(sound for _, sound, _ in chosen))
    ordered = sorted(sounds, key=lambda sound: [_plain(c) for c in sound])
    return rng.choice(
        [
            f"{'、'.join(sounds)}を五十音順に並べると、{'、'.join(ordered)}。",
            f"{'、'.join(sounds)}のうち、辞書で最初に出てくるのは「{ordered[0]}」。",
        ]
    )


def nth(rng: Random) -> str:
    word, sound, _ = rng.choice([entry for entry in WORDS if len(entry[1]) >= 3])
    index = rng.randrange(len(sound))
    beats = japanese.beats(sound)
    return rng.choice(
        [
            f"「{sound}」（{word}）の{kanji(index + 1)}番目のかなは「{sound[index]}」。",
            f"{word}を読むと、「{beats[0]}」で始まって「{beats[-1]}」で終わる。",
        ]
    )


def chain(rng: Random) -> str:
    chosen: list[tuple[str, str, str]] = []
    while len(chosen) < 3:
        chosen = [rng.choice(WORDS)]
        while len(chosen) < 6 and chosen[-1][1][-1] != "ん":
            last = _plain(chosen[-1][1][-1])
            rest = [word for word in WORDS if word not in chosen and word[1][0] == last]
            if not rest:
                break
            chosen.append(rng.choice(rest))
    shown = "→".join(f"{sound}（{word}）" for word, sound, _ in chosen)
    tail = _plain(chosen[-1][1][-1])
    end = "「ん」がついたので、おしまい" if tail == "ん" else f"次は「{tail}」から"
    return f"しりとり：{shown}。{end}。"


def english_word(rng: Random) -> str:
    word, sound, meaning = rng.choice(WORDS)
    return rng.choice(
        [
            f"{word}（{sound}）は英語で {meaning} といいます。",
            f"英語の {meaning} は、日本語の「{word}」にあたります。",
        ]
    )


EXERCISES: Mapping[str, tuple[Exercise, ...]] = {
    "arithmetic": arithmetic_ja.EXERCISES,
    "dates": (weekday, to_era, later, leap_year, animal, day_reading, month_table, age, clock),
    "counting": (
        counter, counter_table, counted_thing, things, large, yen, upward, hundreds, downward, places, binary,
    ),
    "spelling": (
        reading, reading_pair, kana_count, backwards, gojuon, nth, chain, english_word,
    ),
}  # fmt: skip
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "arithmetic": ("計算の練習", "今日の算数", "算数ノートから", "数と計算", "そろばんの時間"),
    "dates": ("暦の話", "日付と曜日", "カレンダーを見ながら", "年月日を調べる", "暦と時計"),
    "counting": ("ものの数え方", "数を読む", "数字と読み方", "数えてみよう", "数の名前"),
    "spelling": ("かなの練習", "言葉と文字", "ことばあそび", "読み方の練習", "国語ノートから"),
}
