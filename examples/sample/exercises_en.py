"""English exercises: each function draws numbers or words and returns one or two lines, always right."""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Callable, Mapping
from random import Random

from examples.sample import arithmetic_en, english, japanese
from examples.sample.vocabulary import NAMES_EN, SPELLING, WORDS

Exercise = Callable[[Random], str]


_LOWER = tuple(word for word in SPELLING if word.islower())


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def _date(rng: Random, first: int = 1873, last: int = 2035) -> datetime.date:
    start = datetime.date(first, 1, 1)
    return start + datetime.timedelta(rng.randrange((datetime.date(last, 12, 31) - start).days + 1))


def _long(date: datetime.date) -> str:
    return f"{date.day} {calendar.month_name[date.month]} {date.year}"


def _weekday(date: datetime.date) -> str:
    return calendar.day_name[date.weekday()]


# Dates


def weekday(rng: Random) -> str:
    date = _date(rng)
    return rng.choice(
        [
            f"{_long(date)} was a {_weekday(date)}." if date.year < 2026 else f"{_long(date)} is a {_weekday(date)}.",
            f"What day of the week belongs to {_long(date)}? {_weekday(date)}.",
            f"The calendar shows {_weekday(date)} for {_long(date)}.",
        ]
    )


def later(rng: Random) -> str:
    date, days = _date(rng), rng.randint(5, 200)
    end = date + datetime.timedelta(days)
    return rng.choice(
        [
            f"{days} days after {_weekday(date)}, {_long(date)}, comes {_weekday(end)}, {_long(end)}.",
            f"Count back {days} days from {_long(end)} and you reach {_long(date)}, a {_weekday(date)}.",
            f"A parcel sent on {_long(date)} and {days} days on its way arrives on {_long(end)}.",
        ]
    )


def between(rng: Random) -> str:
    date, days = _date(rng), rng.randint(14, 400)
    end = date + datetime.timedelta(days)
    rest = "exactly" if days % 7 == 0 else "and 1 day" if days % 7 == 1 else f"and {days % 7} days"
    return rng.choice(
        [
            f"From {_long(date)} to {_long(end)} it is {days} days, or {days // 7} weeks {rest}.",
            f"{_long(date)} and {_long(end)} are {days} days apart.",
        ]
    )


def leap_year(rng: Random) -> str:
    year = rng.choice([rng.randint(1600, 2400), rng.randint(16, 24) * 100])
    if year % 400 == 0:
        return f"{year} is a leap year: it ends in 00, but 400 divides it."
    if year % 100 == 0:
        return f"{year} is not a leap year: it ends in 00 and 400 does not divide it."
    if year % 4 == 0:
        return f"{year} is a leap year, for {year} ÷ 4 = {year // 4} and it does not end in 00."
    return f"{year} is not a leap year, for {year} ÷ 4 leaves {year % 4}; its February has 28 days."


def day_number(rng: Random) -> str:
    date = _date(rng)
    count = date.timetuple().tm_yday
    left = 365 + calendar.isleap(date.year) - count
    day = f"{date.day} {calendar.month_name[date.month]}"
    return rng.choice(
        [
            f"{_long(date)} is the {english.ordinal(count)} day of its year, with {left} to come.",
            f"On the {english.ordinal(count)} day of {date.year} the calendar shows {day}.",
        ]
    )


def era(rng: Random) -> str:
    date = _date(rng)
    _, _, name, year = japanese.era(date)
    first = "the first year" if year == 1 else f"the {english.ordinal_words(year)} year"
    return rng.choice(
        [
            f"In Japan, {_long(date)} falls in {first} of the {name} era ({name} {year}).",
            f"{name} {year} in a Japanese document of {calendar.month_name[date.month]} means the year {date.year}.",
        ]
    )


def nth_weekday(rng: Random) -> str:
    year, month, day = rng.randint(1950, 2035), rng.randint(1, 12), rng.randint(0, 6)
    days = [week[day] for week in calendar.monthcalendar(year, month) if week[day]]
    listed = ", ".join(map(str, days[:-1])) + f" and {days[-1]}"
    name, when = calendar.day_name[day], f"{calendar.month_name[month]} {year}"
    index = rng.randrange(4)
    return rng.choice(
        [
            f"In {when} the {name}s fall on {listed}: {len(days)} of them.",
            f"The {english.ordinal_words(index + 1)} {name} of {when} is the {english.ordinal(days[index])}.",
            f"The last {name} in {when} is the {english.ordinal(days[-1])}.",
        ]
    )


def age(rng: Random) -> str:
    name, born = rng.choice(NAMES_EN), _date(rng, 1930, 2015)
    date = _date(rng, born.year + 5, born.year + 70)
    years = date.year - born.year - ((date.month, date.day) < (born.month, born.day))
    return rng.choice(
        [
            f"{name}, born on {_long(born)}, is {english.words(years)} years old on {_long(date)}.",
            f"How old is {name} on {_long(date)}, if the birthday was {_long(born)}? {years}.",
        ]
    )


def clock(rng: Random) -> str:
    hour, minute = rng.randrange(24), rng.randrange(0, 60, 5)
    if minute == 0 and hour % 12 == 0:
        return f"{hour:02}:00 is {'noon' if hour else 'midnight'}."
    part = "at night" if hour < 5 or hour >= 21 else "in the morning" if hour < 12 else "in the afternoon"
    if 17 <= hour < 21:
        part = "in the evening"
    if minute > 30 and hour in (4, 11, 16, 20):
        return f"{hour:02}:{minute:02} is {english.clock(hour, minute)}."
    return f"{hour:02}:{minute:02} is {english.clock(hour, minute)} {part}."


def journey(rng: Random) -> str:
    start, length = rng.randrange(5 * 60, 18 * 60), rng.randint(25, 340)
    end = start + length
    hours = english.words(length // 60) + (" hour" if length // 60 == 1 else " hours")
    minutes = english.words(length % 60) + (" minute" if length % 60 == 1 else " minutes")
    shown = " and ".join([hours] * (length >= 60) + [minutes] * (length % 60 > 0))
    first, last = (f"{t // 60}:{t % 60:02}" for t in (start, end))
    return f"A train leaves at {first} and takes {shown}, so it arrives at {last}."


# Counting


def upward(rng: Random) -> str:
    start = rng.randint(1, 990)
    shown = ", ".join(english.words(start + i) for i in range(6))
    return rng.choice(
        [f"Counting on: {shown}.", f"From {start}: {shown}.", f"{_cap(shown)}; and then {english.words(start + 6)}."]
    )


def downward(rng: Random) -> str:
    start = rng.randint(10, 400)
    return "Counting back: " + ", ".join(english.words(start - i) for i in range(7)) + "."


def skipping(rng: Random) -> str:
    step = rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 25])
    start = step * rng.randint(1, 30)
    return f"In steps of {english.words(step)}: " + ", ".join(english.words(start + step * i) for i in range(6)) + "."


def ordinals(rng: Random) -> str:
    number = rng.randint(1, 130)
    first, second = (f"{english.ordinal_words(n)} ({english.ordinal(n)})" for n in (number, number + 1))
    return rng.choice([f"After the {first} comes the {second}.", f"The {second} follows the {first}."])


def large(rng: Random) -> str:
    number = rng.randrange(10 ** rng.randint(3, 8), 10**9)
    return rng.choice(
        [
            f"{number:,} is read {english.words(number)}.",
            f"{_cap(english.words(number))} is written {number:,}.",
        ]
    )


def roman(rng: Random) -> str:
    number = rng.randint(4, 2100)
    return rng.choice(
        [
            f"{number} in Roman numerals is {english.roman(number)}.",
            f"{english.roman(number)} stands for {number}, or {english.words(number)}.",
            f"After {english.roman(number)} ({number}) comes {english.roman(number + 1)}.",
        ]
    )


def places(rng: Random) -> str:
    number = rng.randint(1000, 9999)
    names = ("thousand", "hundred", "ten", "one")
    parts = [
        f"{english.words(int(d)) if d != '0' else 'no'} {name}{'' if d == '1' else 's'}"
        for d, name in zip(str(number), names, strict=True)
    ]
    return f"{number:,} has {', '.join(parts[:-1])} and {parts[-1]}."


def binary(rng: Random) -> str:
    number = rng.randint(3, 255)
    parts = " + ".join(str(1 << i) for i in reversed(range(8)) if number >> i & 1)
    return rng.choice(
        [
            f"{number} in binary is {number:b}: {parts}.",
            f"The binary number {number:b} means {parts} = {number}.",
            f"{number} is {number:b} in base two and {number:x} in base sixteen.",
        ]
    )


# Spelling


def letters(rng: Random) -> str:
    word = rng.choice(SPELLING)
    spelled = "-".join(word)
    return rng.choice(
        [
            f'"{word}" is spelled {spelled}.',
            f"How do you spell {word}? {spelled}.",
            f"{spelled} spells {word}.",
            f'Spell out "{word}": {spelled}, {english.words(len(word))} letters.',
        ]
    )


def backwards(rng: Random) -> str:
    word = rng.choice(_LOWER)
    return rng.choice(
        [
            f'Read from the end, "{word}" becomes "{word[::-1]}".',
            f"{word} backwards: {'-'.join(reversed(word))}.",
        ]
    )


def vowels(rng: Random) -> str:
    word = rng.choice(_LOWER)
    found = [c for c in word if c in "aeiou"]
    if not found:
        return f'"{word}" has none of the vowels a, e, i, o, u.'
    noun = "vowel letter" if len(found) == 1 else "vowel letters"
    bare = "".join(c if c in "aeiou" else "_" for c in word)
    return rng.choice(
        [
            f'"{word}" has {len(found)} {noun} ({", ".join(found)}) and {len(word) - len(found)} other letters.',
            f"With only its vowels, {word} looks like this: {bare}",
        ]
    )


def alphabetical(rng: Random) -> str:
    chosen = rng.sample(_LOWER, rng.randint(4, 6))
    return rng.choice(
        [
            f"{', '.join(chosen)} in alphabetical order: {', '.join(sorted(chosen))}.",
            f"Of {', '.join(chosen)}, the dictionary lists {min(chosen)} first and {max(chosen)} last.",
        ]
    )


def position(rng: Random) -> str:
    word = rng.choice(_LOWER)
    index = rng.randrange(len(word))
    return rng.choice(
        [
            f'The {english.ordinal_words(index + 1)} letter of "{word}" is {word[index]}.',
            f"Which letter is number {index + 1} in {word}? It is {word[index]}.",
            f"{word} begins with {word[:3]} and ends with {word[-3:]}.",
        ]
    )


def how_often(rng: Random) -> str:
    word = rng.choice(_LOWER)
    letter = rng.choice(word)
    times = {1: "once", 2: "twice"}.get(word.count(letter), f"{english.words(word.count(letter))} times")
    return rng.choice(
        [
            f'The letter {letter} occurs {times} in "{word}".',
            f"How many times is there a {letter} in {word}? {_cap(times)}.",
        ]
    )


def initials(rng: Random) -> str:
    chosen = rng.sample(_LOWER, 4)
    first, last = (", ".join(word[i] for word in chosen) for i in (0, -1))
    return f"The first letters of {', '.join(chosen)} are {first}; the last are {last}."


def longest(rng: Random) -> str:
    chosen = rng.sample(_LOWER, 3)
    lengths = [f"{word} has {len(word)} letters" for word in chosen]
    return f"{_cap(', '.join(lengths))}. In all that is {sum(map(len, chosen))}."


def translation(rng: Random) -> str:
    word, reading, meaning = rng.choice(WORDS)
    return rng.choice(
        [
            f'The Japanese word {word}, read {reading}, means "{meaning}".',
            f'How do you say "{meaning}" in Japanese? {reading}, written {word}.',
        ]
    )


EXERCISES: Mapping[str, tuple[Exercise, ...]] = {
    "arithmetic": arithmetic_en.EXERCISES,
    "dates": (weekday, later, between, leap_year, day_number, era, nth_weekday, age, clock, journey),
    "counting": (upward, downward, skipping, ordinals, large, roman, places, binary),
    "spelling": (letters, backwards, vowels, alphabetical, position, how_often, initials, longest, translation),
}  # fmt: skip
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "arithmetic": ("Sums for today", "Arithmetic", "A page from the exercise book", "Numbers at work", "Reckoning"),
    "dates": ("Days and dates", "From the calendar", "Time and the calendar", "Almanac", "When was that?"),
    "counting": ("Counting", "Numbers in words", "How numbers are written", "Count along", "Number names"),
    "spelling": ("Spelling", "Letters and words", "Spelling bee", "Word by word", "A look at some words"),
}
