"""The published sets are rows of conversations with right answers, in whichever form their files are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.errors import InputError
from megatron_iberis.tasks import TASKS, Row, Task, open_task
from megatron_iberis.tokenizer.chat import check_messages, text_of

from . import fixtures

AUTHORS = {
    "arc-easy": 2,
    "arc-challenge": 2,
    "mmlu": 1,
    "gsm8k": 2,
    "humaneval": 1,
    "simple-spelling": 256,
    "spelling-bee": 256,
    "identity": 7,
    "jcommonsenseqa": 3,
    "jnli": 1,
    "jsquad": 1,
    "jmmlu": 1,
    "mgsm-ja": 2,
    "mgsm-en": 1,
    "jhumaneval": 1,
    "xwinograd-ja": 1,
    "niilc": 1,
}
HUB = {
    "arc-easy": 2,
    "arc-challenge": 2,
    "mmlu": 1,
    "gsm8k": 2,
    "humaneval": 1,
    "smoltalk": 30,
    "smoltalk-ja": 248,
    "jcommonsenseqa": 3,
    "jsquad": 1,
    "jmmlu": 1,
    "xwinograd-ja": 1,
    "niilc": 1,
}


def rows(task: Task) -> list[Row]:
    return [task[i] for i in range(len(task))]


def answered_rightly(task: Task) -> bool:
    """Whether the conversations are in order and their own answers count as right."""
    for row in rows(task):
        check_messages(row.messages)
        assert row.messages[-1]["role"] == "assistant"
        if task.kind != "conversations" and "humaneval" not in task.name:
            assert task.mark(row, text_of(row.messages[-1]["content"])).score == 1
            assert task.mark(row, "").score == 0
    return True


@pytest.mark.parametrize("name", AUTHORS)
def test_a_set_opens_in_its_authors_form(name: str, authors: str) -> None:
    task = open_task(name, root=authors)
    assert len(task) == AUTHORS[name]
    assert answered_rightly(task)


@pytest.mark.parametrize("name", HUB)
def test_a_set_opens_in_the_hubs_form(name: str, hub_form: str) -> None:
    task = open_task(name, root=hub_form)
    assert len(task) == HUB[name]
    assert answered_rightly(task)


def test_each_task_says_what_it_is(authors: str, hub_form: str) -> None:
    tasks = TASKS.keys() - {"reasoning-gym"}  # which has tests of its own
    assert tasks == AUTHORS.keys() | HUB.keys()
    japanese = {"smoltalk-ja", "jcommonsenseqa", "jnli", "jsquad", "jmmlu", "mgsm-ja", "jhumaneval", "niilc"}
    for name in tasks:
        task = open_task(name, root=authors if name in AUTHORS else hub_form)
        assert task.name == name
        assert task.language == ("ja" if name in japanese | {"xwinograd-ja"} else "en")
        assert (task.kind == "choice") == (task.chance > 0)
        if task.kind == "choice" and name not in ("arc-easy", "arc-challenge"):
            assert task.chance == 1 / len(task[0].options)


def test_a_folder_of_one_set_is_a_root_as_well(authors: str, hub_form: str) -> None:
    assert len(open_task("gsm8k", "train", f"{authors}/eval/gsm8k")) == 2
    assert len(open_task("gsm8k", "", f"{hub_form}/gsm8k")) == 2
    assert len(open_task("smoltalk-ja", "", f"{hub_form}/smoltalk-ja")) == 248


@pytest.mark.parametrize("name", ["smoltalk-ja", "jhumaneval", "jnli", "niilc"])
def test_files_of_another_set_are_not_taken(name: str, tmp_path: Path) -> None:
    fixtures.write_parquet(tmp_path / "more/train-00000-of-00001.parquet", fixtures.MMLU)
    fixtures.write_parquet(tmp_path / "mmlu/all/test-00000-of-00001.parquet", fixtures.MMLU)
    fixtures.write_lines(tmp_path / "chat.jsonl", fixtures.IDENTITY)
    with pytest.raises(InputError, match=f"files of {name}.* are not in"):
        open_task(name, "train" if name == "smoltalk-ja" else "", str(tmp_path))


@pytest.mark.parametrize("name", ["GSM8K", "gsm-8k", "Gsm_8k"])
def test_names_are_taken_with_any_case_and_hyphens(name: str, authors: str) -> None:
    assert open_task(name, root=authors).name == "gsm8k"


def test_rows_come_in_nanochats_order() -> None:
    """Its slices ("the first 10,000") are of rows that `datasets` shuffled with seed 42."""
    datasets = pytest.importorskip("datasets")
    from megatron_iberis.tasks.published import shuffle

    expected = datasets.Dataset.from_dict({"n": range(1000)}).shuffle(seed=42)["n"]
    assert list(shuffle(1000)) == list(expected)


def test_a_row_is_the_same_each_time(hub_form: str) -> None:
    once, again = (rows(open_task("smoltalk", root=hub_form)) for _ in range(2))
    assert once == again
    assert once != sorted(once, key=lambda row: row.where), "in nanochat's order, not the file's"


def test_the_form_of_a_question_with_options(authors: str) -> None:
    by_answer = {row.messages[1]["content"]: row for row in rows(open_task("arc-easy", root=authors))}
    lines = by_answer["B"].messages[0]["content"].split("\n")
    assert lines[:4] == ["Which is hot?", "- ice=A", "- fire=B", ""]
    assert "letter" in lines[4]
    assert len(lines) == 5
    assert by_answer["1"].letters == ("1", "2"), "letters are as the set has them"


def test_gsm8k_calculations_are_calls_of_the_calculator(authors: str) -> None:
    row = next(row for row in rows(open_task("gsm8k", root=authors)) if "pens" in row.messages[0]["content"])
    assert row.messages[1]["content"] == [
        {"type": "text", "text": "2*5="},
        {"type": "python", "text": "2*5"},
        {"type": "python_output", "text": "10"},
        {"type": "text", "text": "10 pens\n#### 10"},
    ]
    assert row.references == ("10",)


def test_mmlu_gives_its_auxiliary_training_set(hub_form: str) -> None:
    for split in ("train", "auxiliary_train"):
        task = open_task("mmlu", split, hub_form)
        assert len(task) == 3
        assert task[0].more["subject"] == "sums"


def test_winograd_is_the_sentence_around_the_second_pronoun(authors: str, hub_form: str) -> None:
    """彼 stands in the sentence twice: the one that is meant is told by its tokens."""
    for root in (authors, hub_form):
        row = open_task("xwinograd-ja", root=root)[0]
        assert (row.more["before"], row.more["after"]) == ("彼は兄に本を貸した。", "は喜んだ。")
        assert row.options[row.right] == "兄"


def test_jsquads_passage_is_without_its_title(authors: str, hub_form: str) -> None:
    for root in (authors, hub_form):
        row = open_task("jsquad", root=root)[0]
        assert row.more["passage"] == "信濃川は日本で最も長い川である。"
        assert row.references == ("信濃川",)


def test_jmmlu_takes_commas_in_quotes_spaces_and_marks_of_byte_order(authors: str) -> None:
    row = open_task("jmmlu", root=authors)[0]
    assert row.more == {"question": "骨は, いくつ？", "subject": "anatomy"}
    assert row.options == ("一", "二", "三", "四")


def test_jmmlu_is_read_out_of_the_hubs_archive(hub_form: str) -> None:
    row = open_task("jmmlu", root=hub_form)[0]
    assert row.where == f"{hub_form}/jmmlu/JMMLU.zip/JMMLU/test/anatomy.csv:2"
    assert row.more == {"question": "問", "subject": "anatomy"}


def test_smoltalk_ja_holds_out_rows_that_are_never_trained_on(hub_form: str) -> None:
    train, test = (rows(open_task("smoltalk-ja", split, hub_form)) for split in ("train", "test"))
    assert [row.messages[0]["content"] for row in test] == ["質問99", "質問199"]
    assert {row.where for row in train}.isdisjoint(row.where for row in test)
    assert len(train) + len(test) == 250


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_all_identity_conversations_are_taken(ending: str, tmp_path: Path) -> None:
    """Upstream keeps element 0 of the list alone: 1 conversation of 1,300."""
    path = tmp_path / f"identity_conversations.{ending}"
    if ending == "json":
        fixtures.write_text(path, json.dumps(fixtures.IDENTITY))
    else:
        fixtures.write_lines(path, fixtures.IDENTITY)
    for task in (open_task("identity", root=str(tmp_path)), open_task(str(path))):
        assert [list(row.messages) for row in rows(task)] == fixtures.IDENTITY


def test_the_identitys_name_can_be_replaced(authors: str) -> None:
    row = open_task("identity", root=authors, replace={"nanochat": "Iberis"})[0]
    assert row.messages[1]["content"] == "I am Iberis 0."


def test_conversations_have_no_marks(authors: str) -> None:
    task = open_task("identity", root=authors)
    with pytest.raises(InputError, match="train on"):
        task.mark(task[0], "x")


@pytest.mark.parametrize(
    ("name", "split", "settings", "says"),
    [
        ("gsm9k", "", {}, "no task 'gsm9k'.*arc-challenge"),
        ("gsm8k", "valid", {}, "no split 'valid'.*test, train"),
        ("gsm8k", "", {"size": 3}, "no setting 'size'"),
        ("smoltalk", "", {}, "download.py smoltalk --output"),
        ("jnli", "train", {}, "jnli or jglue: fetch them"),
        ("spelling-bee", "", {"size": -1}, "-1 rows"),
        ("spelling-bee", "dev", {}, "no split 'dev'"),
        ("identity", "test", {}, "held_out"),
    ],
)
def test_what_is_not_there_is_said(name: str, split: str, settings: dict[str, Any], says: str, authors: str) -> None:
    with pytest.raises(InputError, match=says):
        open_task(name, split, authors, **settings)


def test_an_index_past_the_end_is_an_index_error(authors: str) -> None:
    task = open_task("gsm8k", root=authors)
    assert task[-1] == task[1]
    for index in (2, -3):
        with pytest.raises(IndexError):
            task[index]


def test_to_import_tasks_is_light() -> None:
    heavy = "{'torch', 'pyarrow', 'huggingface_hub', 'datasets', 'requests', 'httpx'}"
    code = f"import sys, megatron_iberis.tasks; assert not {heavy} & sys.modules.keys(), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
