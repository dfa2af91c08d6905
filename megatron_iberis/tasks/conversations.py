"""Conversations to train on: SmolTalk, its Japanese kin, who the model is, and any file of conversations.

A row is {"messages": [...]}, {"conversations": [...]} or the list alone, of {"role", "content"} (or ShareGPT's
{"from", "value"}); or {"instruction", "context" or "input", "response" or "output"}. What a user says last,
unanswered, is left out: nothing is learnt from it. Any other order of roles is an InputError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.place import Place
from megatron_iberis.tasks.published import Language, RecordTask, shuffle
from megatron_iberis.tasks.records import Record, open_records
from megatron_iberis.tasks.task import Mark, Row
from megatron_iberis.tokenizer.chat import check_messages, text_of

_SHAREGPT = {"human": "user", "gpt": "assistant", "system": "system"}
HELD_OUT = 100
"""Of a set that is published without a test split, every 100th row is one."""


def conversation_row(record: Record, replace: Mapping[str, str] | None = None) -> Row:
    """The row of a conversation. replace: texts of messages that stand for others, as a name for a name."""
    messages = [_message(message, record) for message in _messages(record)]
    if messages and messages[-1]["role"] == "user":
        messages.pop()
    try:
        check_messages(messages)
    except InputError as error:
        raise InputError(f"{record.where}: {error}") from None
    for message in messages:
        for old, new in (replace or {}).items():
            message["content"] = _replaced(message["content"], old, new)
    return Row(tuple(messages), record.where)


def _messages(record: Record) -> Sequence[Any]:
    value = record.value
    if isinstance(value, Mapping) and isinstance(value.get("instruction"), str):
        context = value.get("context") or value.get("input") or ""
        answer = record.text("response" if "response" in value else "output")
        question = value["instruction"] + (f"\n\n{context}" if context else "")
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if isinstance(value, Mapping):
        value = value.get("messages") or value.get("conversations")
    if not isinstance(value, list) or not value:
        raise record.error("is no conversation (a list of messages, or an object that has it as 'messages')")
    return value


def _message(message: Any, record: Record) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise record.error(f"has a message that is no object: {message!r:.60}")
    if "from" in message and "role" not in message:
        role = message["from"]
        return {"role": _SHAREGPT.get(str(role), role), "content": message.get("value")}
    return {"role": message.get("role"), "content": message.get("content")}


def _replaced(content: Any, old: str, new: str) -> Any:
    if isinstance(content, str):
        return content.replace(old, new)
    return [{**part, "text": part["text"].replace(old, new)} for part in content]


def open_conversations(
    paths: Sequence[Path],
    name: str,
    split: str = "",
    language: Language = "en",
    replace: Mapping[str, str] | None = None,
    held_out: int = 0,
) -> RecordTask:
    """The conversations of files. held_out: every so-manieth row is of the split "test", the others of "train".

    Without `held_out` all rows are of "train". InputError if the split then has no rows.
    """
    records = open_records(paths)
    if language not in ("en", "ja"):
        raise InputError(f"{name} can't be of language {language!r}: set it to en or ja.")
    if held_out < 0:
        raise InputError(
            f"{name} can't hold out every {held_out}th row: set held_out to 2 or more, or to 0 for none."
        )
    if split not in ("", "train", "test"):
        raise InputError(f"{name} has no split {split!r}: choose among train, test.")
    order = np.arange(len(records))
    held = order % held_out == held_out - 1 if held_out else order < 0
    order = order[held if split == "test" else ~held]
    if not len(order):
        fix = "set held_out to a smaller number" if held_out else "set held_out = 100, say, to hold out every 100th"
        raise InputError(f"{name} has no rows of split {split or 'train'!r}: {fix}.")
    return RecordTask(
        name, language, "conversations", 0.0, records, lambda record: conversation_row(record, replace), order
    )


_SMOLTALK = Place(
    "smoltalk",
    {split: (f"data/{split}-*.parquet", f"{split}*.jsonl", f"{split}*.json") for split in ("train", "test")},
)
_SMOLTALK_JA = Place("smoltalk-ja", {"train": ("data/*.parquet", "**/*.parquet", "*.jsonl", "*.json")})
_IDENTITY = Place(
    "",
    {"train": ("identity_conversations.jsonl", "identity_conversations.json")},
    ("identity", "identity_saint_iberis"),
)


def open_smoltalk(split: str = "", root: str = "") -> RecordTask:
    """460 thousand conversations in English, and 24 thousand of split "test", in nanochat's order."""
    task = open_conversations(_SMOLTALK.find("smoltalk", split or "train", root), "smoltalk")
    task.order = shuffle(len(task.records))
    return task


def open_smoltalk_ja(split: str = "", root: str = "", held_out: int = HELD_OUT) -> RecordTask:
    """132 thousand conversations in Japanese, in the file's order; no test split is published, so one is held out."""
    paths = _SMOLTALK_JA.find("smoltalk-ja", "train", root)
    return open_conversations(paths, "smoltalk-ja", split, "ja", held_out=held_out)


def open_identity(
    split: str = "", root: str = "", replace: Mapping[str, str] | None = None, held_out: int = 0
) -> RecordTask:
    """Who the model is: all conversations of the file. replace = {"nanochat": "NAME"} gives the model its name."""
    paths = _IDENTITY.find("identity", "train", root)
    return open_conversations(paths, "identity", split, "en", replace, held_out)


def open_file(
    path: str,
    split: str = "",
    language: Language = "en",
    replace: Mapping[str, str] | None = None,
    held_out: int = 0,
) -> RecordTask:
    """The conversations of a .json, .jsonl or .parquet file."""
    return open_conversations([Path(path)], path, split, language, replace, held_out)


def open_questions(path: str, language: Language = "en") -> RecordTask:
    """The conversations of a file as an evaluation: right is an answer with the very text of the last message."""
    records = open_records([Path(path)])
    return RecordTask(
        Path(path).stem, language, "generation", 0.0, records, conversation_row, range(len(records)), same_text
    )


def same_text(row: Row, completion: str) -> Mark:
    """1 for the text of the row's answer, but for what stands around it."""
    found = completion.strip()
    return Mark(float(found == text_of(row.messages[-1]["content"]).strip()), found)


TASKS = {"smoltalk": open_smoltalk, "smoltalk-ja": open_smoltalk_ja, "identity": open_identity}
