"""The demo's corpus: the hand-written documents, the exercises' answers, and the whole."""

import calendar
import datetime
import json
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from random import Random

import pytest

from examples.sample import arithmetic_en, arithmetic_ja, default_sample, exercises_en, exercises_ja
from examples.sample import english as en
from examples.sample import japanese as ja
from examples.sample.corpus import KINDS, read_sample, write_corpus
from examples.sample.topics import documents as topic_documents
from examples.sample.vocabulary import COUNTED_JA, GOODS_JA, WORDS
from megatron_iberis.errors import InputError

KEYS = {"text", "source", "kind", "language"}
HAN_OR_KANA = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def sample():
    return read_sample(default_sample())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    summary = write_corpus(path, default_sample())
    return path, summary, [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def lines_of(exercise, count=300, seed=7):
    rng = Random(seed)
    return [exercise(rng) for _ in range(count)]


def shares(documents, key):
    sizes = Counter()
    for document in documents:
        sizes[getattr(document, key)] += document.size
    return {name: size / sizes.total() for name, size in sizes.items()}


# The hand-written documents


def test_sample_size_and_shares(sample):
    assert 60_000 <= sum(document.size for document in sample) <= 100_000
    assert sum(file.stat().st_size for file in default_sample().glob("*.jsonl")) <= 100_000
    assert all(0.4 <= share <= 0.6 for share in shares(sample, "language").values())
    by_kind = shares(sample, "kind")
    assert set(by_kind) == set(KINDS)
    assert all(0.2 <= share <= 0.3 for share in by_kind.values())


def test_sample_documents(sample):
    for document in sample:
        assert 500 <= document.size <= 2500, document.source
        assert document.text == document.text.strip()
        assert document.source.startswith(f"{document.language}-{document.kind}-")
        assert bool(HAN_OR_KANA.search(document.text)) == (document.language == "ja"), document.source
    assert len({document.source for document in sample}) == len(sample)
    assert len({document.text for document in sample}) == len(sample)


def test_sample_files_hold_what_their_names_say():
    for file in default_sample().glob("*.jsonl"):
        language, kind = file.stem.split("_")
        for line in file.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            assert set(document) == KEYS
            assert (document["language"], document["kind"]) == (language, kind)


def test_sample_does_not_repeat_itself(sample):
    lines, phrases = {}, {}
    for document in sample:
        for line in document.text.splitlines():
            if len(line) >= 20:
                assert lines.setdefault(line, document.source) == document.source, line
        length = 40 if document.language == "en" else 16
        for start in range(len(document.text) - length):
            phrase = document.text[start : start + length]
            assert phrases.setdefault(phrase, document.source) == document.source, phrase


def test_readme_has_the_sizes(sample):
    text = (default_sample() / "README.md").read_text(encoding="utf-8")
    for file in default_sample().glob("*.jsonl"):
        documents = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        size = sum(len(document["text"].encode()) for document in documents)
        assert f"| {file.name} | {len(documents)} | {size:,} |" in text
    assert f"| all | {len(sample)} | {sum(document.size for document in sample):,} |" in text


# The whole corpus


def test_corpus_size_and_shares(corpus):
    path, summary, documents = corpus
    assert 1_000_000 <= path.stat().st_size <= 2_000_000
    assert summary.file_bytes == path.stat().st_size
    assert summary.documents == len(documents)
    total = sum(len(document["text"].encode()) for document in documents)
    assert summary.text_bytes == total == sum(summary.by_language.values()) == sum(summary.by_kind.values())
    assert 0.4 <= summary.by_language["ja"] / total <= 0.5
    assert summary.by_kind["reference"] >= 200_000


def test_corpus_documents(corpus):
    _, _, documents = corpus
    assert all(set(document) == KEYS for document in documents)
    assert all(document["language"] in ("en", "ja") for document in documents)
    assert all(0 < len(document["text"].encode()) < 20_000 for document in documents)
    assert len({document["text"] for document in documents}) == len(documents)
    several = Counter(document["source"] for document in documents)
    assert all(source.startswith("python-help/") for source, count in several.items() if count > 1)


def test_an_exercise_comes_once(corpus):
    _, _, documents = corpus
    lines = Counter()
    for document in documents:
        if document["kind"] == "exercise":
            body = document["text"].split("\n\n")[-1].split("\n")
            assert len(body) >= 4, document["source"]
            lines.update((document["language"], line) for line in body)
    assert lines.most_common(1)[0][1] == 1


def test_same_seed_same_bytes(corpus, tmp_path):
    path, _, _ = corpus
    write_corpus(tmp_path / "again.jsonl", default_sample())
    write_corpus(tmp_path / "other.jsonl", default_sample(), seed=1)
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert (tmp_path / "other.jsonl").read_bytes() != path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.jsonl", "other.jsonl"]


def test_missing_sample(tmp_path):
    with pytest.raises(InputError, match="examples/sample"):
        write_corpus(tmp_path / "corpus.jsonl", tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


def test_broken_sample(tmp_path):
    (tmp_path / "en_prose.jsonl").write_text('{"text": "no more than this"}\n')
    with pytest.raises(InputError, match=r"en_prose\.jsonl, line 1"):
        read_sample(tmp_path)


def test_command(tmp_path):
    command = [sys.executable, "-m", "examples.sample"]
    done = subprocess.run([*command, "--output", tmp_path / "demo" / "c.jsonl"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "c.jsonl").exists()
    assert "text by language: en" in done.stdout
    done = subprocess.run(
        [*command, "--output", tmp_path / "c.jsonl", "--sample", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no sample documents")


def test_topics_are_cleaned():
    table = "+---+---+\n| a | b |\n+---+---+"
    grammar = "\n".join(f"   rule{i} ::= other" for i in range(20))
    prose = "A title\n*******\n\nThis is a paragraph that was\nwrapped by hand [3].  " + "It goes on. " * 40
    code = "   if x:\n       print(x[1])"
    text = f"{prose}\n\n{table}\n\n{grammar}\n\n{code}\n\n-[ Footnotes ]-\n\n[3] Not this."
    ((name, document),) = topic_documents({"b": text})
    assert name == "b"
    assert document.startswith("A title\n\nThis is a paragraph that was wrapped by hand.")
    assert "print(x[1])" in document
    assert not re.search(r"\*\*\*|::=|\+--|\[3\]", document)
    again = dict(topic_documents({"a": text, "longer": "Something new. " * 80 + "\n\n" + text}))
    assert "wrapped by hand" in again["a"]
    assert "wrapped by hand" not in again["longer"]


# English


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (1205, "one thousand two hundred and five"),
        (2024, "two thousand and twenty-four"),
        (1_000_001, "one million and one"),
        (305_000_110, "three hundred and five million one hundred and ten"),
    ],
)
def test_words(number, words):
    assert en.words(number) == words


def test_small_english():
    assert [en.ordinal_words(n) for n in (1, 12, 20, 42, 100, 103)] == [
        "first", "twelfth", "twentieth", "forty-second", "one hundredth", "one hundred and third",
    ]  # fmt: skip
    assert [en.ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 111, 122)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "111th", "122nd",
    ]  # fmt: skip
    assert [en.roman(n) for n in (4, 49, 1944, 2026)] == ["IV", "XLIX", "MCMXLIV", "MMXXVI"]
    assert en.clock(14, 35) == "twenty-five to three"
    assert en.clock(11, 45) == "a quarter to twelve"
    assert en.clock(0, 30) == "half past twelve"


# Japanese


@pytest.mark.parametrize(
    ("number", "kanji", "kana"),
    [
        (4, "四", "よん"),
        (10, "十", "じゅう"),
        (100, "百", "ひゃく"),
        (300, "三百", "さんびゃく"),
        (600, "六百", "ろっぴゃく"),
        (800, "八百", "はっぴゃく"),
        (1000, "千", "せん"),
        (3000, "三千", "さんぜん"),
        (8000, "八千", "はっせん"),
        (8888, "八千八百八十八", "はっせんはっぴゃくはちじゅうはち"),
        (10_000, "一万", "いちまん"),
        (13_600, "一万三千六百", "いちまんさんぜんろっぴゃく"),
        (10_000_000, "一千万", "いっせんまん"),
        (100_000_000, "一億", "いちおく"),
        (8 * 10**12, "八兆", "はっちょう"),
        (10**13, "十兆", "じゅっちょう"),
    ],
)
def test_japanese_numbers(number, kanji, kana):
    assert ja.kanji(number) == kanji
    assert ja.kana(number) == kana


@pytest.mark.parametrize(
    ("number", "counter", "reading"),
    [
        (1, "本", "いっぽん"),
        (3, "本", "さんぼん"),
        (6, "本", "ろっぽん"),
        (8, "本", "はっぽん"),
        (10, "本", "じゅっぽん"),
        (21, "本", "にじゅういっぽん"),
        (30, "本", "さんじゅっぽん"),
        (100, "本", "ひゃっぽん"),
        (3, "匹", "さんびき"),
        (6, "匹", "ろっぴき"),
        (8, "杯", "はっぱい"),
        (3, "杯", "さんばい"),
        (1, "個", "いっこ"),
        (100, "個", "ひゃっこ"),
        (3, "階", "さんがい"),
        (3, "回", "さんかい"),
        (3, "軒", "さんげん"),
        (1, "冊", "いっさつ"),
        (8, "冊", "はっさつ"),
        (6, "冊", "ろくさつ"),
        (100, "冊", "ひゃくさつ"),
        (20, "歳", "はたち"),
        (21, "歳", "にじゅういっさい"),
        (3, "足", "さんぞく"),
        (8, "頭", "はっとう"),
        (8, "枚", "はちまい"),
        (10, "枚", "じゅうまい"),
        (1, "人", "ひとり"),
        (2, "人", "ふたり"),
        (4, "人", "よにん"),
        (7, "人", "しちにん"),
        (11, "人", "じゅういちにん"),
        (24, "人", "にじゅうよにん"),
        (4, "円", "よえん"),
        (300, "円", "さんびゃくえん"),
        (10_000, "円", "いちまんえん"),
        (4, "年", "よねん"),
        (2024, "年", "にせんにじゅうよねん"),
        (4, "分", "よんぷん"),
        (5, "分", "ごふん"),
        (40, "分", "よんじゅっぷん"),
    ],
)
def test_counters(number, counter, reading):
    assert ja.counted(number, counter) == reading


def test_counter_tables_are_whole():
    for counter in ja.COUNTERS:
        readings = [ja.counted(number, counter) for number in range(1, 101)]
        assert len(set(readings)) == 100, counter
    assert {unit for _, unit in (*COUNTED_JA, *GOODS_JA)} <= set(ja.COUNTERS)


def test_japanese_dates():
    days = {1: "ついたち", 2: "ふつか", 4: "よっか", 8: "ようか", 10: "とおか", 11: "じゅういちにち"}
    days |= {14: "じゅうよっか", 19: "じゅうくにち", 20: "はつか", 24: "にじゅうよっか", 31: "さんじゅういちにち"}
    assert {number: ja.day(number) for number in days} == days
    assert [ja.month(n) for n in (4, 7, 9, 12)] == ["しがつ", "しちがつ", "くがつ", "じゅうにがつ"]
    assert [ja.hour(n) for n in (0, 4, 7, 9, 14, 20)] == [
        "れいじ",
        "よじ",
        "しちじ",
        "くじ",
        "じゅうよじ",
        "にじゅうじ",
    ]


@pytest.mark.parametrize(
    ("date", "name", "year"),
    [
        ((2019, 4, 30), "平成", 31),
        ((2019, 5, 1), "令和", 1),
        ((1989, 1, 7), "昭和", 64),
        ((1989, 1, 8), "平成", 1),
        ((1926, 12, 24), "大正", 15),
        ((1926, 12, 25), "昭和", 1),
        ((1912, 7, 29), "明治", 45),
        ((1912, 7, 30), "大正", 1),
        ((1873, 1, 1), "明治", 6),
    ],
)
def test_eras(date, name, year):
    found = ja.era(datetime.date(*date))
    assert (found[0], found[3]) == (name, year)


def test_small_japanese():
    assert ja.era_year("令和", 1) == "令和元年"
    assert ja.era_year("昭和", 39) == "昭和三十九年"
    assert [ja.zodiac(year) for year in (2024, 2020, 1966)] == [("辰", "たつ"), ("子", "ね"), ("午", "うま")]
    assert ja.katakana("しゃしんきって") == "シャシンキッテ"
    assert ja.beats("きょうとがっこう") == ["きょ", "う", "と", "が", "っ", "こ", "う"]


def test_vocabulary():
    assert len(WORDS) > 150
    assert len({word for word, _, _ in WORDS}) == len(WORDS)
    assert all(re.fullmatch("[ぁ-ん]+", reading) for _, reading, _ in WORDS)
    assert all(re.fullmatch("[a-z ]+", meaning) for _, _, meaning in WORDS)


# The exercises' answers, read back


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
