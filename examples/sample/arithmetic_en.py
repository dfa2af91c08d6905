"""English exercises in arithmetic: each function draws numbers and returns one or two lines, always right."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

from examples.sample import english
from examples.sample.vocabulary import GOODS_EN, NAMES_EN, THINGS_EN


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def digits(rng: Random) -> str:
    sign = rng.choice("+-×÷")
    a, b = rng.randint(12, 999), rng.randint(3, 99)
    if sign == "+":
        return f"{a} + {b} = {a + b}"
    if sign == "-":
        return f"{a + b} - {b} = {a}"
    if sign == "×":
        return f"{a} × {b} = {a * b}"
    return f"{a * b} ÷ {b} = {a}"


def in_words(rng: Random) -> str:
    a, b = rng.randint(3, 99), rng.randint(2, 60)
    word = english.words
    return rng.choice(
        [
            f"{_cap(word(a))} plus {word(b)} is {word(a + b)}.",
            f"{_cap(word(a + b))} minus {word(b)} leaves {word(a)}.",
            f"{_cap(word(b))} times {word(a)} makes {word(a * b)}.",
            f"If you share {word(a * b)} among {word(b)}, each one gets {word(a)}.",
            f"Add {word(a)} to {word(b)} and you have {word(a + b)}.",
        ]
    )


def carried_sum(rng: Random) -> str:
    a, b = (rng.randint(1, 8) * 10 + rng.randint(1, 9) for _ in range(2))
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    return rng.choice(
        [
            f"What is {a} + {b}? The tens first: {a // 10 * 10} + {b // 10 * 10} = {tens}. "
            f"Then the ones: {a % 10} + {b % 10} = {ones}. Together that makes {a + b}.",
            f"{a} + {b}: the ones give {ones}, the tens give {tens}, and {tens} + {ones} = {a + b}.",
            f"To add {b} to {a}, go up by {b // 10 * 10} to {a + b // 10 * 10}, then by {b % 10} to {a + b}.",
        ]
    )


def split_product(rng: Random) -> str:
    a, b = rng.randint(3, 9), rng.randint(1, 9) * 10 + rng.randint(1, 9)
    tens, ones = b // 10 * 10, b % 10
    up, gap = tens + 10, 10 - ones
    return rng.choice(
        [
            f"{a} × {b}: take {a} × {tens} = {a * tens} and {a} × {ones} = {a * ones}, and add them to get {a * b}.",
            f"Work out {b} × {a} as {a * tens} plus {a * ones}, which is {a * b}.",
            f"{a} times {b} is {a} × {up} = {a * up} less {a} × {gap} = {a * gap}: {a * b}.",
        ]
    )


def remainder(rng: Random) -> str:
    divisor, quotient = rng.randint(3, 19), rng.randint(3, 40)
    rest = rng.randint(1, divisor - 1)
    total = divisor * quotient + rest
    return rng.choice(
        [
            f"{total} divided by {divisor} is {quotient} with {rest} left over, "
            f"since {divisor} × {quotient} = {divisor * quotient}.",
            f"{total} ÷ {divisor} = {quotient} remainder {rest}",
            f"How many times does {divisor} go into {total}? {quotient} times, and {rest} remains.",
            f"{divisor} × {quotient} + {rest} = {total}",
        ]
    )


def story(rng: Random) -> str:
    one, two = rng.sample(NAMES_EN, 2)
    thing = rng.choice(THINGS_EN)
    a, b, c = rng.randint(20, 90), rng.randint(2, 19), rng.randint(2, 9)
    return rng.choice(
        [
            f"{one} has {a} {thing} and gives {b} of them to {two}. {one} keeps {a - b}.",
            f"{one} finds {a} {thing}, and {two} finds {b} more than that. {two} has {a + b}.",
            f"There are {c} boxes with {a} {thing} in each, so {one} counts {a * c} {thing} altogether.",
            f"{one} and {two} collect {a} and {b} {thing}. Between them they have {a + b}, a difference of {a - b}.",
            f"{two} packs {a * c} {thing} into {c} equal bags. Every bag holds {a}.",
            f"On Monday {one} counts {a} {thing}; by Friday {b} are missing. How many remain? {a - b}.",
        ]
    )


def shopping(rng: Random) -> str:
    name = rng.choice(NAMES_EN)
    one, many = rng.choice(GOODS_EN)
    price, count = rng.randint(15, 480), rng.randint(2, 9)
    total = price * count
    paid = (total // 500 + 1) * 500
    each, whole, note, change = (f"{amount / 100:.2f}" for amount in (price, total, paid, paid - total))
    return rng.choice(
        [
            f"One {one} costs {each}. {name} buys {count} {many} for {whole} and gets {change} back from {note}.",
            f"{name} wants {count} {many} at {each} each. They come to {whole}, and {note} - {whole} = {change}.",
            f"The bill for {count} {many} is {whole}, so one {one} must have cost {each}.",
        ]
    )


def comparison(rng: Random) -> str:
    a, b = sorted(rng.sample(range(100, 9999), 2))
    return rng.choice(
        [
            f"{b} is greater than {a}; the difference is {b - a}.",
            f"{a} < {b}, because {a} + {b - a} = {b}.",
            f"Which is smaller, {b} or {a}? It is {a}, by {b - a}.",
        ]
    )


def sequence(rng: Random) -> str:
    start, step = rng.randint(2, 60), rng.randint(3, 25)
    if rng.random() < 0.5:
        shown = [start + step * i for i in range(5)]
        rule, following = f"each number is {step} more than the last", start + step * 5
    else:
        start, step = rng.randint(1, 20), rng.randint(2, 4)
        shown = [start * step**i for i in range(5)]
        rule, following = f"each number is {step} times the last", start * step**5
    return f"{', '.join(map(str, shown))}: {rule}, so the next is {following}."


def percentage(rng: Random) -> str:
    percent, base = rng.randint(1, 19) * 5, rng.randint(2, 60) * 20
    part = percent * base // 100
    return rng.choice(
        [
            f"{percent}% of {base} is {part}, which leaves {base - part}.",
            f"Of {base} visitors, {part} came by train: that is {percent} per cent.",
            f"A price of {base} falls by {percent}%. The new price is {base - part}, a saving of {part}.",
        ]
    )


def fraction(rng: Random) -> str:
    a, b = (Fraction(rng.randint(1, 7), rng.randint(2, 9)) for _ in range(2))
    low, high = sorted((a, b))
    return rng.choice(
        [
            f"{a} + {b} = {a + b}, and {a} × {b} = {a * b}.",
            f"Take {low} from {high} and {high - low} is left.",
            f"{a} divided by {b} is {a / b}.",
        ]
    )


def factors(rng: Random) -> str:
    number = rng.randint(20, 999)
    primes: list[int] = []
    rest = number
    for divisor in range(2, number + 1):
        while rest % divisor == 0:
            primes.append(divisor)
            rest //= divisor
    if len(primes) == 1:
        return rng.choice(
            [
                f"{number} is a prime number: nothing but 1 and {number} divides it.",
                f"Is {number} prime? Yes; no number from 2 to {math.isqrt(number)} divides it.",
            ]
        )
    product = " × ".join(map(str, primes))
    return rng.choice(
        [
            f"{number} is not prime, because {primes[-1]} × {number // primes[-1]} = {number}.",
            f"In prime factors, {number} = {product}.",
            f"Is {number} prime? No: {number} = {product}.",
        ]
    )


def mean(rng: Random) -> str:
    count = rng.randint(3, 5)
    numbers = [rng.randint(10, 90) for _ in range(count - 1)]
    numbers.append(rng.randint(2, 20) * count + (-sum(numbers)) % count)
    rng.shuffle(numbers)
    total = sum(numbers)
    shown = f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    return rng.choice(
        [
            f"The mean of {shown} is {total // count}: the sum is {total}, and {total} ÷ {count} = {total // count}.",
            f"{shown} add up to {total}, so on average they are {total // count}.",
            f"Of {shown} the smallest is {min(numbers)} and the largest {max(numbers)}.",
        ]
    )


def rounding(rng: Random) -> str:
    number = rng.randint(1, 99) * 100 + rng.randint(1, 99)
    ten, hundred = (number + 5) // 10 * 10, (number + 50) // 100 * 100
    return rng.choice(
        [
            f"{number} rounded to the nearest ten is {ten}, and to the nearest hundred {hundred}.",
            f"About how many is {number}? To the nearest hundred, {hundred}.",
            f"{number} lies between {number // 100 * 100} and {number // 100 * 100 + 100}.",
        ]
    )


EXERCISES = (
    digits,
    in_words,
    carried_sum,
    split_product,
    remainder,
    story,
    shopping,
    comparison,
    sequence,
    percentage,
    fraction,
    factors,
    mean,
    rounding,
)
