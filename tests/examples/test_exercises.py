"""The answers of the demo's exercises, read back and worked out again."""

import calendar
import datetime
import re
from fractions import Fraction
from random import Random

import pytest

from examples.sample import arithmetic_en, arithmetic_ja, exercises_en, exercises_ja
from examples.sample import english as en
from examples.sample import japanese as ja


def lines_of(exercise, count=300, seed=7):
    rng = Random(seed)
    return [exercise(rng) for _ in range(count)]


def equations(line):
    """The equations in a line, each as the list of its sides in Python's notation."""
    plain = line.split("確かめ：")[-1].translate(str.maketrans("＋－×÷＝（）", "+-*/=()"))
    if re.search("remainder|あまり", plain):
        return
    for found in re.findall(r"[\d(][\d+\-*/=(). ]*", plain):
        sides = [side.strip(" .") for side in found.split("=")]
        if len(sides) > 1:
            yield [re.sub(r"\d+(\.\d+)?", lambda number: f"Fraction('{number[0]}')", side) for side in sides]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_equation_holds(language):
    checked = 0
    for exercise in {"en": arithmetic_en, "ja": arithmetic_ja}[language].EXERCISES:
        for line in lines_of(exercise):
            for sides in equations(line):
                assert len({eval(side, {"Fraction": Fraction}) for side in sides}) == 1, line
                checked += 1
    assert checked > 1200


def test_digits_in_both_languages():
    for line in lines_of(arithmetic_en.digits) + lines_of(arithmetic_ja.digits):
        a, sign, b, result = re.fullmatch(r"(\d+) ?(\D) ?(\d+) ?[=＝] ?(\d+)", line).groups()
        left = {"+": int(a) + int(b), "-": int(a) - int(b), "×": int(a) * int(b), "÷": Fraction(int(a), int(b))}
        left |= {"＋": left["+"], "－": left["-"]}
        assert left[sign] == int(result), line


def test_remainders():
    for line in lines_of(arithmetic_ja.remainder):
        a, b, quotient, rest = map(int, re.findall(r"\d+", line)[:4])
        assert divmod(a, b) == (quotient, rest), line
    for line in lines_of(arithmetic_en.remainder):
        if "divided by" in line or "remainder" in line:
            a, b, quotient, rest = map(int, re.findall(r"\d+", line)[:4])
            assert divmod(a, b) == (quotient, rest), line


def test_sums_in_words():
    english = {en.words(n): n for n in range(10_000)}
    japanese = {ja.kanji(n): n for n in range(40_000)}
    kana = {ja.kana(n): n for n in range(10_000)}
    checked = 0
    for line in lines_of(arithmetic_en.in_words):
        if match := re.fullmatch(r"(.+) (plus|times) (.+) (?:is|makes) (.+)\.", line):
            a, b, result = (english[match[i].lower()] for i in (1, 3, 4))
            assert result == (a + b if match[2] == "plus" else a * b), line
            checked += 1
    for line in lines_of(arithmetic_ja.in_kanji):
        if match := re.fullmatch(r"(.+)に(.+)を足すと、(.+)になる。", line):
            assert japanese[match[1]] + japanese[match[2]] == japanese[match[3]], line
            checked += 1
        elif match := re.fullmatch(r"(.+)の(.+)倍は(.+)である。", line):
            assert japanese[match[1]] * japanese[match[2]] == japanese[match[3]], line
            checked += 1
    for line in lines_of(arithmetic_ja.in_kana):
        a, sign, b, _, result = line.split(" ")
        a, b, result = kana[a], kana[b], kana[result]
        assert {"たす": a + b, "ひく": a - b, "かける": a * b, "わる": a / b}[sign] == result, line
        checked += 1
    assert checked > 450


def test_stories_and_shopping():
    for line in lines_of(arithmetic_ja.shopping):
        numbers = list(map(int, re.findall(r"\d+", line)))
        if "おつり" in line:
            price, m, cost, n, total, paid, change = numbers
            assert price * m + cost * n == total
            assert paid - total == change >= 0
        elif "合計" in line:
            assert numbers[1] + numbers[3] == numbers[4]
    for line in lines_of(arithmetic_en.shopping):
        if line.startswith("One"):
            price, total, change, paid = (Fraction(x) for x in re.findall(r"\d+\.\d\d", line))
            assert price * int(re.search(r"buys (\d)", line)[1]) == total
            assert total + change == paid
    for line in lines_of(arithmetic_ja.story):
        if match := re.search(r"(\d+)\D持っていましたが、.*に(\d+)\Dあげました。残りは(\d+)", line):
            assert int(match[1]) - int(match[2]) == int(match[3])
        if match := re.search(r"一箱に(\d+)\Dずつ入っています。(\d)箱では全部で(\d+)", line):
            assert int(match[1]) * int(match[2]) == int(match[3])


def test_weekdays():
    for line in lines_of(exercises_ja.weekday):
        if match := re.match(r"(\d+)年(\d+)月(\d+)日は(?:何曜日ですか。――)?(.)曜日", line):
            day = datetime.date(*map(int, match.groups()[:3]))
            assert "月火水木金土日"[day.weekday()] == match[4], line
    names = "|".join(calendar.day_name)
    for line in lines_of(exercises_en.weekday):
        day = datetime.datetime.strptime(re.search(r"\d+ \w+ \d{4}", line)[0], "%d %B %Y")
        assert re.search(names, line)[0] == calendar.day_name[day.weekday()], line


def test_readings_in_exercises_belong_to_their_numbers():
    for line in lines_of(exercises_ja.counter) + lines_of(exercises_ja.counted_thing):
        match = re.search(r"(\d+)(\D)（([ぁ-ん]+)）", line) or re.search(r"(\d+)(\D)なら([ぁ-ん]+)です", line)
        if match:
            assert ja.counted(int(match[1]), match[2]) == match[3], line


@pytest.mark.parametrize("module", [exercises_en, exercises_ja])
def test_every_subject_has_headings_and_varied_exercises(module):
    assert set(module.EXERCISES) == set(module.HEADINGS) == {"arithmetic", "dates", "counting", "spelling"}
    for exercises in module.EXERCISES.values():
        assert len(exercises) >= 8
        for exercise in exercises:
            lines = lines_of(exercise, 60)
            assert all(line and "\n" not in line and "  " not in line for line in lines)
            assert len(set(lines)) > 15, exercise.__name__
