"""Word problems whose answer is a number: GSM8K, and MGSM, its translation, in Japanese and English.

GSM8K's solutions hold calculations as <<48/2=24>>: in a conversation each is a call of the calculator and what it
gave (parts "python" and "python_output"), and the solution ends with "#### " and the number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from megatron_iberis.tasks.marking import mark_number, mark_number_strictly
from megatron_iberis.tasks.place import Place
from megatron_iberis.tasks.published import Language, Published
from megatron_iberis.tasks.records import Record, Records, open_records
from megatron_iberis.tasks.task import Row

_CALCULATION = re.compile(r"<<([^<>]+)>>")
_ANSWER = re.compile(r"####\s*(-?[\d,]*\.?\d+)\s*$")


def _read_gsm8k(record: Record) -> Row:
    question, solution = record.text("question"), record.text("answer")
    found = _ANSWER.search(solution)
    if not found:
        raise record.error("has no '#### NUMBER' at the end of its 'answer'")
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": _parts(solution)})
    return Row(messages, record.where, references=(_reference(found[1]),), more={"question": question})


def _parts(solution: str) -> list[dict[str, Any]]:
    """The content of the assistant's message: texts and calculations in turn."""
    parts = []
    for number, piece in enumerate(_CALCULATION.split(solution)):
        if number % 2:
            expression, _, result = piece.rpartition("=") if "=" in piece else (piece, "", "")
            parts += [{"type": "python", "text": expression}, {"type": "python_output", "text": result}]
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _reference(number: str) -> str:
    return number.replace(",", "")


def _mgsm(language: Language) -> Published:
    instruction = {
        "ja": "順を追って考え、最後の行に「#### 」に続けて答えの数だけを書いてください。",
        "en": "Think step by step, and write the number alone after '#### ' in the last line.",
    }[language]

    def read(record: Record) -> Row:
        question, number = record.text("question"), _reference(record.text("answer").strip())
        try:
            Decimal(number)
        except ArithmeticError:
            raise record.error(f"has {number!r} for a number as its answer") from None
        messages = (
            {"role": "user", "content": f"{question}\n\n{instruction}"},
            {"role": "assistant", "content": f"#### {number}"},
        )
        return Row(messages, record.where, references=(number,), more={"question": question})

    def open_mgsm(paths: Sequence[Path]) -> Records:
        return open_records(paths, header=("question", "answer"))

    return Published(
        f"mgsm-{language}",
        language,
        "generation",
        0.0,
        Place("mgsm", {"test": (f"mgsm_{language}.tsv",)}),
        "test",
        read,
        mark_number,
        {"gsm8k_strict": mark_number_strictly},
        open_mgsm,
    )


_GSM8K = Place("gsm8k", {split: (f"main/{split}-*.parquet", f"{split}.jsonl") for split in ("test", "train")})

TASKS = {
    "gsm8k": Published(
        "gsm8k",
        "en",
        "generation",
        0.0,
        _GSM8K,
        "test",
        _read_gsm8k,
        mark_number,
        {"gsm8k_strict": mark_number_strictly},
    ),
    "mgsm-ja": _mgsm("ja"),
    "mgsm-en": _mgsm("en"),
}
