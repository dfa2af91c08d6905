"""Files of conversations are read lazily and in any order; what is wrong in one is told by its file and line."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_iberis.errors import InputError
from megatron_iberis.tasks import arrow, open_task
from megatron_iberis.tasks.conversations import conversation_row
from megatron_iberis.tasks.records import JsonLines, Record, open_records

from .fixtures import GSM8K, conversation, write_lines, write_parquet, write_table, write_text

USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
KEYS = [
    "messages",
    "conversations",
    "role",
    "content",
    "from",
    "value",
    "type",
    "text",
    "instruction",
    "output",
    "input",
]
SYSTEM = {"role": "system", "content": "Be kind."}
SOME = [USER, ASSISTANT]


def first(tmp_path: Path, value: Any) -> Any:
    return open_task(str(write_lines(tmp_path / "c.jsonl", [value])))[0]


@pytest.mark.parametrize(
    "value",
    [
        SOME,
        {"messages": SOME},
        {"conversations": SOME, "id": 7},
        {"messages": [{**USER, "name": "x"}, ASSISTANT]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"instruction": "Hi", "context": "", "response": "Hello", "category": "x"},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        [*SOME, USER],
    ],
)
def test_every_usual_form_of_a_conversation_is_read(value: Any, tmp_path: Path) -> None:
    row = first(tmp_path, value)
    assert list(row.messages) == SOME
    assert row.where == f"{tmp_path / 'c.jsonl'}:1"


def test_system_tool_parts_and_contexts_are_kept(tmp_path: Path) -> None:
    parts = {"role": "assistant", "content": [{"type": "python", "text": "1+1"}, {"type": "text", "text": "2"}]}
    assert list(first(tmp_path, [SYSTEM, USER, parts]).messages) == [SYSTEM, USER, parts]
    row = first(tmp_path, {"instruction": "Shorten.", "context": "Long.", "response": "Ok"})
    assert row.messages[0]["content"] == "Shorten.\n\nLong."


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ([ASSISTANT, USER], r":3: message 1 \(assistant\) begins the conversation.*take turns"),
        ([USER, USER, ASSISTANT], r":3: message 2 \(user\) follows another user"),
        ([USER, SYSTEM, ASSISTANT], r":3: message 2 \(system\) comes after"),
        ([USER], ":3: there is no user message"),
        ([USER, {"role": "tool", "content": "x"}], ":3: message 2 has the role 'tool'"),
        ([USER, {"role": "assistant"}], r":3: message 2 \(assistant\) has no content"),
        ([USER, "Hello"], ":3: the row has a message that is no object"),
        ({"text": "a book"}, ":3: the row is no conversation.*mend it or take it out"),
        ({"instruction": "Hi"}, ":3: the row has no 'output'"),
        ([], ":3: the row is no conversation"),
        (7, ":3: the row is no conversation"),
        (b'{"messages": [', ":3: not JSON.*mend the line"),
        ('{"messages": "café"}'.encode("latin-1"), ":3: the text is not UTF-8: save"),
        ("[「朝」]".encode("cp932"), ":3: the text is not UTF-8: save"),
    ],
)
def test_a_broken_row_names_file_and_line(line: Any, says: str, tmp_path: Path) -> None:
    """Blank lines count as lines."""
    path = tmp_path / "c.jsonl"
    good = json.dumps(SOME).encode()
    path.write_bytes(good + b"\n\n" + (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" + good)
    task = open_task(str(path))
    assert len(task) == 3
    assert list(task[0].messages) == list(task[2].messages) == SOME
    with pytest.raises(InputError, match=str(path) + says):
        task[1]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from(["", "user", "assistant", "text", "python", "x"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(KEYS), values, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_any_row_is_a_conversation_or_an_input_error(value: Any) -> None:
    try:
        said = conversation_row(Record(value, "f:1"), {"x": "y"}).where
    except InputError as error:
        said = str(error)
    assert said.startswith("f:1")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "is empty"),
        ("a.json", b" ", "is empty"),
        ("a.json", b"[]", "is empty"),
        ("a.json", b'[\n[{"role": 1}],\n[{"role" 1}]]', ":3: not JSON"),
        ("a.json", '["朝"]'.encode("cp932"), ":1: the text is not UTF-8"),
        ("a.jsonl", "[]\n".encode("utf-16"), ":1: the text is UTF-16: save the file as UTF-8"),
        ("a.json", b"[" * 100_000, "lists within lists"),
        ("a.jsonl", b"[" * 100_000, "1: not JSON"),
        ("a.parquet", b"PAR1 no", "cannot be read.*download it again"),
        ("a.parquet", b"", "cannot be read.*download it again"),
        ("a.txt", b"x", "no task"),
    ],
)
def test_a_file_that_is_nothing_to_read_is_said_at_once(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        open_task(str(path))[0]


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.jsonl is not there"):
        open_task("none.jsonl", root=str(tmp_path))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        open_task(str(tmp_path / "folder.jsonl"))


def test_a_file_is_found_below_the_root(tmp_path: Path) -> None:
    write_lines(tmp_path / "sft/c.jsonl", [SOME])
    assert len(open_task("sft/c.jsonl", root=str(tmp_path))) == 1


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_marks_of_byte_order_do_no_harm(ending: bytes, mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(mark + (ending or b"\n").join([json.dumps(SOME).encode()] * 3) + ending)
    assert [list(open_task(str(path))[i].messages) for i in range(3)] == [SOME] * 3


def test_a_json_list_tells_the_line_of_its_rows_and_json_lines_may_be_named_json(tmp_path: Path) -> None:
    path = write_text(tmp_path / "c.json", json.dumps([SOME, [ASSISTANT]], indent=2))
    with pytest.raises(InputError, match=r"c.json:12: message 1"):
        open_task(str(path))[1]
    assert len(open_task(str(write_lines(tmp_path / "lines.json", [SOME, SOME])))) == 2


def test_gsm8k_without_its_answer_names_file_and_line(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [*GSM8K, {"question": "1+1?", "answer": "It is 2."}])
    task = open_task("gsm8k", "train", str(tmp_path))
    with pytest.raises(InputError, match=r"train.jsonl:3: the row has no '#### NUMBER'.*mend it or take it out"):
        [task[i] for i in range(3)]


@pytest.mark.parametrize(
    ("name", "file", "row", "says"),
    [
        (
            "arc-easy",
            "ARC-Easy/test.jsonl",
            {"question": "?", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "E"},
            "'E'",
        ),
        ("arc-easy", "ARC-Easy/test.jsonl", {"question": "?", "choices": [], "answerKey": "A"}, "'text' and 'label'"),
        ("mmlu", "test.jsonl", {"question": "?", "choices": ["1", "2"], "answer": 2}, "from 0 to 1, not 2"),
        ("mmlu", "test.jsonl", {"question": "?", "choices": "12", "answer": 0}, "'choices' must be a list of texts"),
        ("gsm8k", "test.jsonl", {"question": 3, "answer": "#### 1"}, "'question' must be a text, not 3"),
        (
            "humaneval",
            "HumanEval.jsonl",
            {"prompt": "x", "canonical_solution": "", "entry_point": "f"},
            "without 'def f'",
        ),
        ("jnli", "jnli-v1.3/valid-v1.3.json", {"sentence1": "a", "sentence2": "b", "label": "maybe"}, "'maybe'"),
        ("xwinograd-ja", "test/jp.jsonl", {"sentence": "none", "option1": "a", "option2": "b", "answer": "1"}, "'_'"),
        (
            "jsquad",
            "jsquad-v1.3/valid-v1.3.json",
            {"context": "c", "question": "q", "answers": []},
            "'answers' must be",
        ),
    ],
)
def test_a_row_of_a_set_with_a_wrong_value_says_which(
    name: str, file: str, row: dict[str, Any], says: str, tmp_path: Path
) -> None:
    write_lines(tmp_path / file, [row])
    with pytest.raises(InputError, match=rf"{Path(file).name}:1: the row .*{says}.*: mend it or take it out"):
        open_task(name, root=str(tmp_path))[0]


def test_a_table_with_a_column_too_few_names_its_line(tmp_path: Path) -> None:
    write_table(tmp_path / "mgsm_ja.tsv", [["1?", "1"], ["2?"]], "\t")
    with pytest.raises(InputError, match=r"mgsm_ja.tsv:2: the row has 1 columns instead of 2"):
        open_task("mgsm-ja", root=str(tmp_path))


def test_xml_that_is_broken_names_its_line(tmp_path: Path) -> None:
    write_text(tmp_path / "NIILC-ECQA2015_test.xml", "<questions>\n<question>\n")
    with pytest.raises(InputError, match=r"test.xml:3: not XML"):
        open_task("niilc", root=str(tmp_path))


def test_of_a_jsonl_file_only_offsets_are_in_memory(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", [[USER, {**ASSISTANT, "content": "x" * 2000}]] * 5000)
    tracemalloc.start()
    records = JsonLines(path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(records) == 5000
    assert path.stat().st_size > 10_000_000
    assert kept < 500_000
    assert records[4999].where == f"{path}:5000"


def test_a_large_parquet_file_is_read_in_any_order_from_one_mapped_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "c.parquet", [conversation(i) for i in range(3000)], group=700)
    in_memory = open_records([path])
    monkeypatch.setattr(arrow, "IN_MEMORY", 0)
    mapped = open_records([path])
    copy = tmp_path / "c.parquet.arrow"
    made = copy.stat().st_mtime_ns
    order = random.Random(0).sample(range(3000), 500)
    assert [mapped[i] for i in order] == [in_memory[i] for i in order]
    assert mapped[2999].value["messages"] == conversation(2999)["messages"]
    open_records([path])
    assert copy.stat().st_mtime_ns == made, "it is made once"
    os.utime(path, ns=(made + 1, made + 1))
    open_records([path])
    assert copy.stat().st_mtime_ns > made, "and again, of a file that has changed"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.parquet", "c.parquet.arrow"]


def test_where_no_copy_may_be_made_rows_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "c.parquet", [conversation(i) for i in range(10)])
    monkeypatch.setattr(arrow, "IN_MEMORY", 0)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(arrow, "atomic_file", refuse)
    assert open_records([path])[9].value["messages"] == conversation(9)["messages"]


def test_processes_that_open_a_large_file_at_once_make_one_whole_copy(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "c.parquet", [conversation(i) for i in range(20_000)], group=1000)
    code = (
        "import sys; from pathlib import Path; from megatron_iberis.tasks import arrow; arrow.IN_MEMORY = 0\n"
        "rows = arrow.open_parquet(Path(sys.argv[1])); assert len(rows) == 20000\n"
        "print(rows[19999]['messages'][0]['content'])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == ["question 19999\n"] * 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.parquet", "c.parquet.arrow"]


def test_a_file_has_a_language_and_rows_held_out(tmp_path: Path) -> None:
    path = str(write_lines(tmp_path / "c.jsonl", [conversation(i) for i in range(10)]))
    train, test = (open_task(path, split, language="ja", held_out=4) for split in ("train", "test"))
    assert (train.language, len(train)) == ("ja", 8)
    assert [test[i].where for i in range(len(test))] == [f"{path}:4", f"{path}:8"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"language": "fr"}, "en or ja"),
        ({"held_out": -1}, "2 or more"),
        ({"held_out": 11, "split": "test"}, "no rows of split 'test'.*smaller"),
        ({"split": "dev"}, "no split 'dev'"),
    ]
    for given_settings, says in wrong:
        with pytest.raises(InputError, match=says):
            open_task(path, **given_settings)


def test_several_files_are_one_after_another(tmp_path: Path) -> None:
    paths = [write_lines(tmp_path / f"{n}.jsonl", [conversation(10 * n + i) for i in range(n + 1)]) for n in range(4)]
    records = open_records(paths)
    assert [records[i].where.rsplit("/", 1)[1] for i in range(len(records))] == [
        f"{n}.jsonl:{i + 1}" for n in range(4) for i in range(n + 1)
    ]
