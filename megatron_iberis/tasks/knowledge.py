"""Questions with options to choose from by a letter: ARC-Easy, ARC-Challenge, MMLU.

    The question?
    - first option=A
    - second option=B

    Answer with the letter of the right option only.

The letter stands behind the option without a space, as it stands in the answer, so that both are the same token. Rows
carry the question alone as more["question"]; scores by the options' texts are made of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from megatron_iberis.tasks.marking import mark_letter
from megatron_iberis.tasks.place import Place
from megatron_iberis.tasks.published import Language, Published
from megatron_iberis.tasks.records import Record
from megatron_iberis.tasks.task import Row

_INSTRUCTIONS = {
    "en": "Answer with the letter of the right option only.",
    "ja": "正しい選択肢の記号だけを答えてください。",
}
LETTERS = "ABCDEFGHIJ"


def choice_row(
    record: Record,
    question: str,
    options: Sequence[str],
    right: int,
    language: Language = "en",
    letters: Sequence[str] = LETTERS,
    more: Mapping[str, Any] | None = None,
) -> Row:
    """The row of a question with options; `right` is the number of the right one."""
    letters = tuple(letters[: len(options)])
    listed = "".join(f"- {option}={letter}\n" for option, letter in zip(options, letters, strict=True))
    return Row(
        (
            {"role": "user", "content": f"{question}\n{listed}\n{_INSTRUCTIONS[language]}"},
            {"role": "assistant", "content": letters[right]},
        ),
        record.where,
        tuple(options),
        letters,
        right,
        (options[right],),
        {"question": question, **(more or {})},
    )


def _read_arc(record: Record) -> Row:
    choices = record["choices"]
    if not isinstance(choices, Mapping):
        raise record.error("'choices' must be an object with 'text' and 'label'")
    choices = Record(choices, record.where)
    options, letters = choices.texts("text"), choices.texts("label")
    answer = record.text("answerKey")
    if answer not in letters or len(options) != len(letters):
        raise record.error(f"has the answer {answer!r}, which is none of its labels ({', '.join(letters)})")
    return choice_row(record, record.text("question"), options, letters.index(answer), letters=letters)


def _read_mmlu(record: Record) -> Row:
    if isinstance(record.value, Mapping) and isinstance(wrapped := record.value.get("train"), Mapping):
        record = Record(wrapped, record.where)  # rows of the auxiliary set are wrapped so
    options = record.texts("choices")
    subject = record.value.get("subject") or ""
    right = record.index("answer", len(options))
    return choice_row(record, record.text("question"), options, right, more={"subject": subject})


def _arc(name: str, folder: str) -> Published:
    splits = {
        split: (f"{folder}/{split}-*.parquet", f"{folder}/{split}.jsonl") for split in ("test", "train", "validation")
    }
    return Published(name, "en", "choice", 0.25, Place("arc", splits), "test", _read_arc, mark_letter)


_AUXILIARY = ("auxiliary_train/*.parquet", "all/auxiliary_train-*.parquet", "auxiliary_train.jsonl")
_MMLU = Place(
    "mmlu",
    {
        "test": ("all/test-*.parquet", "test.jsonl"),
        "dev": ("all/dev-*.parquet", "dev.jsonl"),
        "validation": ("all/validation-*.parquet", "validation.jsonl"),
        "auxiliary_train": _AUXILIARY,
        "train": _AUXILIARY,
    },
)

TASKS = {
    "arc-easy": _arc("arc-easy", "ARC-Easy"),
    "arc-challenge": _arc("arc-challenge", "ARC-Challenge"),
    "mmlu": Published("mmlu", "en", "choice", 0.25, _MMLU, "test", _read_mmlu, mark_letter),
}
