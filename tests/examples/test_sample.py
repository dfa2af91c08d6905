"""The demo's corpus: the hand-written documents, the words and numbers of both languages, and the whole."""

import datetime
import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from examples.sample import default_sample
from examples.sample import english as en
from examples.sample import japanese as ja
from examples.sample.corpus import KINDS, read_sample, write_by_language, write_corpus
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


def test_a_file_a_language_holds_the_same_documents(corpus, tmp_path):
    _, _, documents = corpus
    found = write_by_language(tmp_path / "corpus.jsonl", default_sample())
    assert [path.name for path in found] == ["corpus-en.jsonl", "corpus-ja.jsonl"]
    for path, language in zip(found, ("en", "ja"), strict=True):
        read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert read == [document for document in documents if document["language"] == language]
        assert found[path].by_language.keys() == {language}


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
