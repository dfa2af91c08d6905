"""Small sets in the forms in which the real ones are published, with content of our own."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

WORDS = "\n".join(a + b + c for a in "bcdfghlmnprst" for b in "aeiou" for c in ("n", "rt", "ll", "lamp", "stone"))
IDENTITY = [
    [{"role": "user", "content": f"Who are you ({i})?"}, {"role": "assistant", "content": f"I am nanochat {i}."}]
    for i in range(7)
]
GSM8K = [
    {"question": "Two boxes hold 5 pens each. How many?", "answer": "2*5=<<2*5=10>>10 pens\n#### 10"},
    {"question": "A car of $1,000 costs twice that.", "answer": "It costs $<<1000*2=2000>>2000.\n#### 2,000"},
]
ARC = [
    {"question": "Which is hot?", "choices": {"text": ["ice", "fire"], "label": ["A", "B"]}, "answerKey": "B"},
    {"question": "Which is wet?", "choices": {"text": ["rain", "sand"], "label": ["1", "2"]}, "answerKey": "1"},
]
MMLU = [{"question": "1 + 1?", "subject": "sums", "choices": ["1", "2", "3", "4"], "answer": 1}]
PROMPT = (
    'from math import pi\n\n\ndef half(x):\n    """Half."""\n    return x / 2\n\n\n'
    'def area(r):\n    """Of a disc."""\n'
)
HUMANEVAL = [
    {
        "task_id": "T/0",
        "prompt": PROMPT,
        "entry_point": "area",
        "canonical_solution": "    return 2 * half(pi * r * r)\n",
        "test": "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-3\n",
    }
]
COMMONSENSE = [
    {"q_id": i, "question": f"{i}番目に甘いのは？", **{f"choice{j}": f"物{i}{j}" for j in range(5)}, "label": i}
    for i in range(3)
]
NLI = [{"sentence1": "犬が走る。", "sentence2": "動物が動く。", "label": "entailment"}]
SQUAD: dict[str, Any] = {
    "version": "1.1",
    "data": [
        {
            "title": "川",
            "paragraphs": [
                {
                    "context": "川 [SEP] 信濃川は日本で最も長い川である。",
                    "qas": [
                        {
                            "id": "a1",
                            "question": "最も長い川は？",
                            "answers": [{"text": "信濃川", "answer_start": 8}, {"text": "信濃川", "answer_start": 8}],
                        }
                    ],
                }
            ],
        }
    ],
}
NIILC = """<?xml version='1.0' encoding="UTF-8"?>
<questions>
<question id="N-1"><text>富士山の高さは？</text>
<answers><answer>3776m</answer><answer>3776メートル</answer></answers></question>
<question id="N-2"><text>答えのない問い？</text><answers><answer></answer></answers></question>
</questions>
"""
SENTENCE, TOKENS = "彼は兄に本を貸した。彼は喜んだ。", ["彼", "は", "兄", "に本を貸した。", "彼", "は喜んだ。"]
WINOGRAD: list[list[Any]] = [
    ["en", "x", "?", "He ran.", '["He", "ran."]', '["He", [0, 1], ["He"]]', "[]"],
    ["jp", "x", "?", SENTENCE, TOKENS, ["彼", [4, 5], ["彼"]], [["弟", [0, 1], [], False], ["兄", [2, 3], [], True]]],
]


def conversation(number: int, language: str = "en") -> dict[str, Any]:
    said = f"質問{number}" if language == "ja" else f"question {number}"
    return {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": f"{said}!"}]}


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=group)
    return path


def write_table(path: Path, rows: Iterable[Iterable[Any]], delimiter: str, mark: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        if delimiter == "\t":
            file.writelines(
                "\t".join(cell if isinstance(cell, str) else json.dumps(cell) for cell in row) + "\n" for row in rows
            )
        else:
            csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def as_their_authors_publish(root: Path) -> Path:
    """Each set in a folder of its own, in two folders, as the authors' repositories have the files."""
    en, ja = root / "eval", root / "eval_ja"
    for subset in ("ARC-Easy", "ARC-Challenge"):
        for split in ("train", "test"):
            write_lines(en / f"arc/{subset}/{split}.jsonl", ARC)
    write_lines(en / "mmlu/test.jsonl", MMLU)
    write_lines(en / "mmlu/dev.jsonl", MMLU)
    for split in ("train", "test"):
        write_lines(en / f"gsm8k/{split}.jsonl", GSM8K)
    write_lines(en / "humaneval/HumanEval.jsonl", HUMANEVAL)
    write_text(en / "spellingbee_words/words_alpha.txt", WORDS.replace("\n", "\r\n") + "\r\n")
    write_lines(ja / "jglue/jcommonsenseqa-v1.3/valid-v1.3.json", COMMONSENSE)
    write_lines(ja / "jglue/jnli-v1.3/valid-v1.3.json", NLI)
    write_text(ja / "jglue/jsquad-v1.3/valid-v1.3.json", json.dumps(SQUAD))
    write_table(ja / "jmmlu/anatomy.csv", [["骨は, いくつ？", "一", " 二", "三", "四", "B"]], ",", "\ufeff")
    write_table(ja / "mgsm/mgsm_ja.tsv", [['10円の"飴"を2つ。', "20"], ["高い家。", "70,000"]], "\t")
    write_table(ja / "mgsm/mgsm_en.tsv", [["Two sweets of 10.", "20"]], "\t")
    write_lines(ja / "jhumaneval/jhuman-eval.jsonl", HUMANEVAL)
    write_table(ja / "xwinograd/dataset_jp_en.tsv", WINOGRAD, "\t")
    write_text(ja / "niilc_qa/NIILC-ECQA2015_test.xml", NIILC)
    write_text(root / "sft/identity_saint_iberis/identity_conversations.json", json.dumps(IDENTITY, indent=1))
    return root


def as_the_hub_has_them(root: Path) -> Path:
    """The same sets as their repositories on the Hub have them, beside sets that are published there alone."""
    for subset in ("ARC-Easy", "ARC-Challenge"):
        for split in ("train", "test"):
            write_parquet(root / f"arc/{subset}/{split}-00000-of-00001.parquet", ARC)
    write_parquet(root / "mmlu/all/test-00000-of-00001.parquet", MMLU)
    write_parquet(root / "mmlu/auxiliary_train/train-00000-of-00001.parquet", [{"train": row} for row in MMLU * 3])
    write_parquet(root / "gsm8k/main/test-00000-of-00001.parquet", GSM8K)
    write_parquet(root / "gsm8k/socratic/test-00000-of-00001.parquet", MMLU)
    write_parquet(root / "humaneval/openai_humaneval/test-00000-of-00001.parquet", HUMANEVAL)
    for shard in range(3):
        rows = [conversation(10 * shard + i) for i in range(10)]
        write_parquet(root / f"smoltalk/data/train-0000{shard}-of-00003.parquet", rows, group=4)
    write_parquet(root / "smoltalk/data/test-00000-of-00001.parquet", [conversation(100 + i) for i in range(5)])
    write_parquet(root / "smoltalk-ja/data/train-00000-of-00001.parquet", [conversation(i, "ja") for i in range(250)])
    write_parquet(root / "jcommonsenseqa/data/validation-00000-of-00001.parquet", COMMONSENSE)
    table = write_table(root / "anatomy.csv", [["question", *"ABCD", "answer"], [*"問1234", "D"]], ",")
    (root / "jmmlu").mkdir()
    with zipfile.ZipFile(root / "jmmlu/JMMLU.zip", "w") as archive:
        archive.write(table, "JMMLU/test/anatomy.csv")
        archive.writestr("JMMLU/LICENSE", "none")
    write_lines(
        root / "xwinograd/test/jp.jsonl",
        [{"sentence": "彼は兄に本を貸した。_は喜んだ。", "option1": "弟", "option2": "兄", "answer": "2"}],
    )
    passage = SQUAD["data"][0]["paragraphs"][0]
    asked = {
        "context": passage["context"],
        "question": "最も長い川は？",
        "answers": {"text": ["信濃川"], "answer_start": [8]},
    }
    write_parquet(root / "jsquad/data/validation-00000-of-00001.parquet", [asked])
    write_parquet(root / "niilc/data/test-00000-of-00001.parquet", [{"text": "富士山は？", "answers": ["3776m"]}])
    return root
