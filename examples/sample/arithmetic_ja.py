"""Japanese exercises in arithmetic: each function draws numbers and returns one or two lines, always right."""

from __future__ import annotations

import math
from random import Random

from examples.sample.japanese import kana, kanji
from examples.sample.vocabulary import COUNTED_JA, GOODS_JA, NAMES_JA


def digits(rng: Random) -> str:
    sign = rng.choice("＋－×÷")
    a, b = rng.randint(12, 999), rng.randint(3, 99)
    if sign == "＋":
        return f"{a}＋{b}＝{a + b}"
    if sign == "－":
        return f"{a + b}－{b}＝{a}"
    if sign == "×":
        return f"{a}×{b}＝{a * b}"
    return f"{a * b}÷{b}＝{a}"


def in_kanji(rng: Random) -> str:
    a, b = rng.randint(11, 400), rng.randint(2, 90)
    return rng.choice(
        [
            f"{kanji(a)}に{kanji(b)}を足すと、{kanji(a + b)}になる。",
            f"{kanji(a + b)}から{kanji(b)}を引けば、残りは{kanji(a)}。",
            f"{kanji(a)}の{kanji(b)}倍は{kanji(a * b)}である。",
            f"{kanji(a * b)}を{kanji(b)}で割ると、ちょうど{kanji(a)}。",
            f"{kanji(a)}と{kanji(b)}では、差が{kanji(abs(a - b)) if a != b else 'なく'}、和が{kanji(a + b)}。",
        ]
    )


def in_kana(rng: Random) -> str:
    a, b = rng.randint(3, 99), rng.randint(2, 60)
    return rng.choice(
        [
            f"{kana(a)} たす {kana(b)} は {kana(a + b)}",
            f"{kana(a + b)} ひく {kana(b)} は {kana(a)}",
            f"{kana(a)} かける {kana(b)} は {kana(a * b)}",
            f"{kana(a * b)} わる {kana(b)} は {kana(a)}",
        ]
    )


def written_sum(rng: Random) -> str:
    a, b = (rng.randint(1, 8) * 10 + rng.randint(1, 9) for _ in range(2))
    ones, tens = a % 10 + b % 10, a // 10 + b // 10
    carry = ones // 10
    first = f"一の位は{a % 10}＋{b % 10}＝{ones}" + ("で、十の位に1くり上がります。" if carry else "です。")
    second = f"十の位は{a // 10}＋{b // 10}" + ("＋1" if carry else "") + f"＝{tens + carry}。"
    return rng.choice(
        [
            f"{a}＋{b}の筆算です。{first}{second}答えは{a + b}。",
            f"{a}＋{b}を暗算するには、まず{b // 10 * 10}を足して{a + b // 10 * 10}、あと{b % 10}を足して{a + b}。",
        ]
    )


def split_product(rng: Random) -> str:
    a, b = rng.randint(3, 9), rng.randint(1, 9) * 10 + rng.randint(1, 9)
    tens, ones = b // 10 * 10, b % 10
    return rng.choice(
        [
            f"{b}×{a}は、{tens}×{a}＝{tens * a}と{ones}×{a}＝{ones * a}に分けて考え、合わせて{a * b}。",
            f"{a}×{b}＝{a}×（{tens}＋{ones}）＝{a * tens}＋{a * ones}＝{a * b}",
            f"{b}を{a}回足すと{a * b}。{tens + 10}×{a}＝{(tens + 10) * a}より{(10 - ones) * a}小さい。",
        ]
    )


def remainder(rng: Random) -> str:
    divisor, quotient = rng.randint(3, 19), rng.randint(3, 40)
    rest = rng.randint(1, divisor - 1)
    total = divisor * quotient + rest
    return rng.choice(
        [
            f"{total}÷{divisor}＝{quotient}あまり{rest}。確かめ：{divisor}×{quotient}＋{rest}＝{total}",
            f"{total}を{divisor}で割ると、商は{quotient}、余りは{rest}です。",
        ]
    )


def story(rng: Random) -> str:
    one, two = (name + "さん" for name in rng.sample(NAMES_JA, 2))
    thing, unit = rng.choice([entry for entry in COUNTED_JA if entry[1] in "本個枚冊"])
    a, b, c = rng.randint(20, 90), rng.randint(2, 19), rng.randint(3, 9)
    less, more, times = f"{a - b}{unit}", f"{a + b}{unit}", f"{a * c}{unit}"
    return rng.choice(
        [
            f"{one}は{thing}を{a}{unit}持っていましたが、{two}に{b}{unit}あげました。残りは{less}です。",
            f"{thing}が一箱に{a}{unit}ずつ入っています。{c}箱では全部で{times}になります。",
            f"{one}の{thing}は{a}{unit}、{two}はそれより{b}{unit}多いそうです。{two}の{thing}は{more}です。",
            f"{times}の{thing}を{c}人で同じ数ずつ分けると、一人分は{a}{unit}です。",
            f"棚に{thing}が{a}{unit}ありました。昼に{b}{unit}運び出し、夕方に{c}{unit}戻したので、"
            f"いまは{a - b + c}{unit}あります。",
            f"{one}と{two}が{thing}を集めました。{a}{unit}と{b}{unit}で、合わせて{more}です。",
        ]
    )


def shopping(rng: Random) -> str:
    (first, unit), (second, other) = rng.sample(GOODS_JA, 2)
    price, cost = rng.randint(3, 48) * 10, rng.randint(3, 48) * 10
    m, n = rng.randint(2, 6), rng.randint(1, 6)
    total = price * m + cost * n
    paid = (total // 1000 + 1) * 1000
    return rng.choice(
        [
            f"一{unit}{price}円の{first}を{m}{unit}と、一{other}{cost}円の{second}を{n}{other}買うと、"
            f"代金は{total}円。{paid}円出せば、おつりは{paid - total}円。",
            f"「{first}を{m}{unit}ください」「{price * m}円です」――一{unit}あたり{price}円の計算です。",
            f"{first}が{m}{unit}で{price * m}円、{second}が{n}{other}で{cost * n}円。合計{total}円。",
        ]
    )


def comparison(rng: Random) -> str:
    a, b = sorted(rng.sample(range(100, 9999), 2))
    return rng.choice(
        [
            f"{a}と{b}では、{b}のほうが{b - a}大きい。",
            f"{b}は{a}より大きい。その差は{b - a}。",
            f"小さい順に並べると{a}、{b}。間は{b - a}離れている。",
        ]
    )


def sequence(rng: Random) -> str:
    start, step = rng.randint(2, 60), rng.randint(3, 25)
    shown = [start + step * i for i in range(5)]
    if rng.random() < 0.5:
        return f"{'、'.join(map(str, shown))}、……は{step}ずつ増えるので、次は{start + step * 5}。"
    return (
        f"{'、'.join(map(str, reversed(shown)))}と{step}ずつ減っていく列で、最初の数は{shown[-1]}、五番目は{start}。"
    )


def percentage(rng: Random) -> str:
    percent, base = rng.randint(1, 19) * 5, rng.randint(2, 60) * 20
    part = percent * base // 100
    return rng.choice(
        [
            f"{base}円の品物が{percent}パーセント引きなら、{part}円安くなって{base - part}円。",
            f"{base}人のうち{percent}パーセントは{part}人、残りは{base - part}人。",
        ]
    )


def factors(rng: Random) -> str:
    number = rng.randint(20, 999)
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    if len(divisors) == 2:
        return rng.choice(
            [
                f"{number}は素数です。1と{number}のほかに約数がありません。",
                f"{number}は、2から{math.isqrt(number)}までのどの数でも割り切れないので素数です。",
            ]
        )
    return rng.choice(
        [
            f"{number}は素数ではありません。{divisors[1]}×{number // divisors[1]}＝{number}と書けるからです。",
            f"{number}の約数は{'、'.join(map(str, divisors))}の{len(divisors)}個。",
        ]
    )


def parity(rng: Random) -> str:
    number = rng.randint(100, 9999)
    half = f"2で割り切れて{number // 2}になる" if number % 2 == 0 else "2で割ると1余る"
    three = sum(map(int, str(number)))
    tail = "3の倍数" if three % 3 == 0 else "3の倍数ではない"
    return f"{number}は{half}ので{'偶数' if number % 2 == 0 else '奇数'}。各位の数の和は{three}だから、{tail}。"


def trees(rng: Random) -> str:
    gap, count = rng.randint(2, 15), rng.randint(5, 60)
    length = gap * (count - 1)
    if rng.random() < 0.5:
        return (
            f"まっすぐな道の端から端まで{gap}メートルおきに木を{count}本植えました。"
            f"間は{count - 1}か所なので、道の長さは{length}メートルです。"
        )
    return f"周りが{gap * count}メートルの池に、{gap}メートルおきに木を植えると、{count}本いります。"


def speed(rng: Random) -> str:
    rate, hours = rng.randint(3, 90), rng.randint(2, 8)
    return rng.choice(
        [
            f"時速{rate}キロメートルで{hours}時間進むと、{rate * hours}キロメートル。",
            f"{rate * hours}キロメートルの道のりを{hours}時間で行くには、時速{rate}キロメートルで進めばよい。",
            f"{rate * hours}キロメートル先の町へ時速{rate}キロメートルで向かうと、着くまでに{hours}時間かかる。",
        ]
    )


def rounding(rng: Random) -> str:
    number = rng.randint(1001, 99999)
    ten, hundred = (number + 5) // 10 * 10, (number + 50) // 100 * 100
    return rng.choice(
        [
            f"{number}を四捨五入すると、十の位までで{ten}、百の位までで{hundred}。",
            f"{number}は、百の位までのがい数にするとおよそ{hundred}。",
            f"{number}の百未満を切り捨てると{number // 100 * 100}、切り上げると{-(-number // 100) * 100}。",
        ]
    )


def journey(rng: Random) -> str:
    start, length = rng.randrange(5 * 60, 18 * 60), rng.randint(25, 340)
    end = start + length
    hours = f"{length // 60}時間" if length >= 60 else ""
    minutes = f"{length % 60}分" if length % 60 else ""
    first, last = (f"{t // 60}時" + (f"{t % 60}分" if t % 60 else "ちょうど") for t in (start, end))
    return rng.choice(
        [
            f"{first}に出た列車は、{hours}{minutes}走って{last}に着きます。",
            f"{first}から{last}までは{hours}{minutes}、分に直すと{length}分です。",
            f"{last}に着きたい人は、{hours}{minutes}かかるので{first}に出ればよい。",
        ]
    )


EXERCISES = (
    digits,
    in_kanji,
    in_kana,
    written_sum,
    split_product,
    remainder,
    story,
    story,
    shopping,
    comparison,
    sequence,
    percentage,
    factors,
    parity,
    trees,
    speed,
    rounding,
    journey,
)
