"""Japanese evaluation: JCommonsenseQA, JNLI, JMMLU and XWinograd-ja by choice, JSQuAD and NIILC by short answers.

* XWinograd: who is meant by a pronoun? more["before"] and more["after"] are the sentence around its
  place: the option after which the rest of the sentence is the likelier is the choice, as in CORE's schema tasks.
* JSQuAD's rows have more["passage"] besides more["question"]. JSQuAD and NIILC are marked by the best F1 over the
  characters of an answer; "exact_match" is their other mark.
* JSQuAD's usual split is "valid": parts of its test passages are in Japanese Wikipedia samples that people train on.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.knowledge import LETTERS, choice_row
from megatron_iberis.tasks.marking import mark_characters, mark_exactly, mark_letter
from megatron_iberis.tasks.place import Place
from megatron_iberis.tasks.published import Kind, ListRecords, Marker, Published
from megatron_iberis.tasks.records import Record, Records, chained, decoded, open_records, read_table
from megatron_iberis.tasks.task import Row

_SHORT = "短い語句だけで答えてください。"


def _read_commonsense(record: Record) -> Row:
    options = [record.text(f"choice{i}") for i in range(5)]
    return choice_row(record, record.text("question"), options, record.index("label", 5), "ja")


_RELATIONS = {"entailment": "含意", "contradiction": "矛盾", "neutral": "中立"}


def _read_nli(record: Record) -> Row:
    premise, hypothesis, label = (record.text(key) for key in ("sentence1", "sentence2", "label"))
    if label not in _RELATIONS:
        raise record.error(f"has the label {label!r} ({', '.join(_RELATIONS)} are known)")
    question = f"前提: {premise}\n仮説: {hypothesis}\n前提と仮説の関係はどれですか。"
    right = list(_RELATIONS).index(label)
    return choice_row(record, question, list(_RELATIONS.values()), right, "ja", more={"label": label})


def _read_jmmlu(record: Record) -> Row:
    options = [record.text(letter).strip() for letter in "abcd"]
    answer = record.text("answer").strip().upper()
    if answer not in tuple("ABCD"):
        raise record.error(f"has the answer {answer!r} instead of A, B, C or D")
    subject = Path(record.where).name.split(".")[0]
    return choice_row(
        record, record.text("question").strip(), options, LETTERS.index(answer), "ja", more={"subject": subject}
    )


def _open_jmmlu(paths: Sequence[Path]) -> Records:
    """A .csv file a subject, by themselves or, as on the Hub, in a .zip."""
    header = ("question", "a", "b", "c", "d", "answer")
    if paths[0].suffix != ".zip":
        return open_records(paths, header)
    try:
        with zipfile.ZipFile(paths[0]) as archive:
            names = [name for name in sorted(archive.namelist()) if name.endswith(".csv") and "__MACOSX" not in name]
            texts = {paths[0] / name: archive.read(name) for name in names}
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{paths[0]} cannot be read ({error}): fetch it again.") from None
    return chained([read_table(decoded(content, path), path, header) for path, content in texts.items()], paths[0])


def _read_winograd(record: Record) -> Row:
    before, after = record.text("before"), record.text("after")
    options, right = record.texts("options"), record.index("right", 2)
    question = f"{before}＿{after}\n＿に入るのはどちらですか。"
    return choice_row(record, question, options, right, "ja", more={"before": before, "after": after})


def _open_winograd(paths: Sequence[Path]) -> Records:
    """Of the authors' table, or of lines {"sentence": "... _ ...", "option1", "option2", "answer": "1" or "2"}."""
    if paths[0].suffix == ".tsv":
        columns = ("language", "origin", "translation", "sentence", "tokens", "pronoun", "candidates")
        table = open_records(paths, header=columns)
        rows = [table[i] for i in range(len(table))]
        return ListRecords([_winograd_of_table(row) for row in rows if row.text("language") == "jp"])
    lines = open_records(paths)
    return ListRecords([_winograd_of_line(lines[i]) for i in range(len(lines))])


def _winograd_of_table(row: Record) -> Record:
    """The pronoun is named by its tokens; in the sentence it is found by passing over the tokens before it."""
    sentence = row.text("sentence")
    try:
        tokens = json.loads(row.text("tokens"))
        _, (first, last), _ = json.loads(row.text("pronoun"))
        candidates = json.loads(row.text("candidates"))
        at = 0
        for token in tokens[:first]:
            at = sentence.index(token, at) + len(token)
        start = sentence.index(tokens[first], at)
        end = start
        for token in tokens[first:last]:
            end = sentence.index(token, end) + len(token)
        options, right = [text for text, *_ in candidates], [known for *_, known in candidates].index(True)
    except (ValueError, TypeError, IndexError) as error:
        raise row.error(f"is no Winograd schema ({error})") from None
    value = {"before": sentence[:start], "after": sentence[end:], "options": options, "right": right}
    return Record(value, row.where)


def _winograd_of_line(row: Record) -> Record:
    before, blank, after = row.text("sentence").partition("_")
    answer = str(row["answer"])
    if not blank or answer not in ("1", "2"):
        raise row.error("must have a '_' in its 'sentence' and 1 or 2 as its 'answer'")
    options = [row.text("option1"), row.text("option2")]
    return Record({"before": before, "after": after, "options": options, "right": int(answer) - 1}, row.where)


def _answer_row(record: Record, question: str, answers: Sequence[str], more: Mapping[str, Any]) -> Row:
    messages = ({"role": "user", "content": f"{question}\n\n{_SHORT}"}, {"role": "assistant", "content": answers[0]})
    return Row(messages, record.where, references=tuple(dict.fromkeys(answers)), more=more)


def _read_squad(record: Record) -> Row:
    """The authors' passage is "title [SEP] text"."""
    title, separator, passage = record.text("context").partition(" [SEP] ")
    passage = passage if separator else title
    question = record.text("question")
    answers = record["answers"]
    if isinstance(answers, Mapping):  # as the Hub's tables have it
        texts = answers.get("text")
    else:
        texts = [answer.get("text") for answer in answers if isinstance(answer, Mapping)]
    texts = Record({"answers": list(texts or [])}, record.where).texts("answers")
    more = {"question": question, "passage": passage, "title": title if separator else ""}
    return _answer_row(record, f"文章: {passage}\n質問: {question}", texts, more)


def _open_squad(paths: Sequence[Path]) -> Records:
    """Of the authors' tree of articles, passages and questions, or of a table of questions."""
    records = open_records(paths)
    if len(records) > 1 or not isinstance(records[0].value, Mapping) or "data" not in records[0].value:
        return records
    found: list[Record] = []
    tree = records[0]
    try:
        for article in tree["data"]:
            for passage in article["paragraphs"]:
                for asked in passage["qas"]:
                    where = f"{paths[0]}: question {asked.get('id', len(found) + 1)}"
                    found.append(Record({**asked, "context": passage["context"]}, where))
    except (KeyError, TypeError, AttributeError) as error:
        raise tree.error(f"is not SQuAD's form ({error})") from None
    return ListRecords(found)


def _read_niilc(record: Record) -> Row:
    question = record.text("text")
    return _answer_row(record, question, record.texts("answers"), {"question": question})


def _open_niilc(paths: Sequence[Path]) -> Records:
    """Of the authors' XML, or of a table with text and answers. Questions without an answer are left out."""
    if paths[0].suffix != ".xml":
        return open_records(paths)
    found: list[Record] = []
    for path in paths:
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise InputError(f"{path}:{error.position[0]}: not XML ({error}): mend it or fetch it again.") from None
        for question in root.iter("question"):
            answers = [(answer.text or "").strip() for answer in question.iterfind("answers/answer")]
            value = {"text": (question.findtext("text") or "").strip(), "answers": [text for text in answers if text]}
            if value["answers"]:
                found.append(Record(value, f"{path}: question {question.get('id', len(found) + 1)}"))
    if not found:
        raise InputError(f"{paths[0]} holds no question with an answer: fetch it again.")
    return ListRecords(found)


def _jglue(name: str) -> dict[str, tuple[str, ...]]:
    """Splits as JGLUE's repository has them, whatever its version, and as tables on the Hub."""
    return {
        "valid": (
            f"{name}-v1.*/valid-v1.*.json",
            f"datasets/{name}-v1.*/valid-v1.*.json",
            "data/validation-*.parquet",
        ),
        "train": (f"{name}-v1.*/train-v1.*.json", f"datasets/{name}-v1.*/train-v1.*.json", "data/train-*.parquet"),
        "test": (f"{name}-v1.*/test-v1.*.json", f"datasets/{name}-v1.*/test-v1.*.json", "data/test-*.parquet"),
    }


def _task(
    name: str,
    chance: float,
    place: Place,
    usual: str,
    read: Callable[[Record], Row],
    marker: Marker = mark_letter,
    open: Callable[[Sequence[Path]], Records] = open_records,
) -> Published:
    kind: Kind = "choice" if chance else "generation"
    other = {} if chance else {"exact_match": mark_exactly}
    return Published(name, "ja", kind, chance, place, usual, read, marker, other, open)


_ALL = (
    _task(
        "jcommonsenseqa",
        0.2,
        Place("jcommonsenseqa", _jglue("jcommonsenseqa"), ("jglue",)),
        "valid",
        _read_commonsense,
    ),
    _task("jnli", 1 / 3, Place("jnli", _jglue("jnli"), ("jglue",)), "valid", _read_nli),
    _task(
        "jmmlu",
        0.25,
        Place("jmmlu", {"test": ("test/*.csv", "JMMLU/*.csv", "JMMLU.zip", "*.csv")}),
        "test",
        _read_jmmlu,
        open=_open_jmmlu,
    ),
    _task(
        "xwinograd-ja",
        0.5,
        Place("xwinograd", {"test": ("test/jp.jsonl", "dataset*.tsv", "xwinograd*.tsv")}),
        "test",
        _read_winograd,
        open=_open_winograd,
    ),
    _task(
        "jsquad",
        0.0,
        Place("jsquad", _jglue("jsquad"), ("jglue",)),
        "valid",
        _read_squad,
        mark_characters,
        _open_squad,
    ),
    _task(
        "niilc",
        0.0,
        Place(
            "niilc",
            {
                "test": ("NIILC-ECQA2015_test.xml", "data/NIILC-ECQA2015_test.xml", "**/test-*.parquet"),
                "dev": (
                    "NIILC-ECQA2015_dev.xml",
                    "data/NIILC-ECQA2015_dev.xml",
                    "**/dev-*.parquet",
                    "**/validation-*.parquet",
                ),
            },
            ("niilc_qa",),
        ),
        "test",
        _read_niilc,
        mark_characters,
        _open_niilc,
    ),
)
TASKS = {task.name: task for task in _ALL}
