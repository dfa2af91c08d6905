"""English number words, ordinals, Roman numerals and clock times."""

from __future__ import annotations

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ((10**9, "billion"), (10**6, "million"), (10**3, "thousand"))
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_ROMAN = (
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
)


def words(number: int) -> str:
    """`number` in words, in the British manner: 1205 is "one thousand two hundred and five"."""
    if number < 0:
        return "minus " + words(-number)
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, one = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_ONES[one]}" if one else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{_ONES[hundreds]} hundred" + (f" and {words(rest)}" if rest else "")
    for scale, name in _SCALES:
        if number >= scale:
            count, rest = divmod(number, scale)
            join = " and " if rest < 100 else " "
            return f"{words(count)} {name}" + (join + words(rest) if rest else "")
    raise AssertionError(number)


def ordinal_words(number: int) -> str:
    """`number` as an ordinal in words: 42 is "forty-second"."""
    text = words(number)
    cut = max(text.rfind(" "), text.rfind("-")) + 1
    head, last = text[:cut], text[cut:]
    if last in _ORDINALS:
        return head + _ORDINALS[last]
    return head + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def ordinal(number: int) -> str:
    """`number` as an ordinal in digits: 1st, 2nd, 3rd, 4th, 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def roman(number: int) -> str:
    """`number` (1 to 3999) in Roman numerals."""
    result = ""
    for value, sign in _ROMAN:
        count, number = divmod(number, value)
        result += sign * count
    return result


def clock(hour: int, minute: int) -> str:
    """A time of day in words; `minute` is a multiple of five: (14, 35) is "twenty-five to three"."""
    near = hour % 12 or 12
    following = (hour + 1) % 12 or 12
    if minute == 0:
        return f"{words(near)} o'clock"
    if minute == 15:
        return f"a quarter past {words(near)}"
    if minute == 30:
        return f"half past {words(near)}"
    if minute == 45:
        return f"a quarter to {words(following)}"
    if minute < 30:
        return f"{words(minute)} past {words(near)}"
    return f"{words(60 - minute)} to {words(following)}"
