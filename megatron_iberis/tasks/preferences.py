"""Pairs of answers of which one is preferred: a file with a JSON object a line.

    {"prompt": "What is 2 + 2?", "chosen": "4.", "rejected": "22."}

Each of the three is a text or a list of messages. The prompt's last message is a user's. An answer is one assistant's
message, which may stand after the prompt's messages, as many published sets have it. Blank lines are nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError
from megatron_iberis.tasks.records import Record, Records, open_records
from megatron_iberis.tokenizer.chat import Message, check_messages


@dataclass(frozen=True)
class Preference:
    """Two answers to a prompt, of which the first is preferred.

    prompt: messages, the last a user's. chosen, rejected: contents of an assistant's message. where: "FILE:LINE".
    """

    prompt: tuple[Message, ...]
    chosen: Any
    rejected: Any
    where: str


def open_preferences(path: str | os.PathLike[str]) -> Sequence[Preference]:
    """The pairs of a file, in its order, read one after the other.

    InputError, which names file and line, if the file cannot be read or holds no pair; one that is broken raises it
    when it is read.
    """
    return _Preferences(open_records([Path(path)]))


class _Preferences(Sequence[Preference]):
    def __init__(self, records: Records) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return preference_of(self._records[range(len(self))[index]])


def preference_of(record: Record) -> Preference:
    """The pair in a row. InputError that names its place and what is wrong with it."""
    prompt = _prompt(record)
    chosen, rejected = (_answer(record, prompt, name) for name in ("chosen", "rejected"))
    return Preference(prompt, chosen, rejected, record.where)


def _prompt(record: Record) -> tuple[Message, ...]:
    value = record["prompt"]
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    _check(record, "prompt", value)
    if value[-1]["role"] != "user":
        raise record.error("has a 'prompt' whose last message is not a user's")
    return tuple(value)


def _answer(record: Record, prompt: tuple[Message, ...], name: str) -> Any:
    """The content of the answer's message."""
    value = record[name]
    if isinstance(value, list) and value and all(isinstance(each, Mapping) and "role" in each for each in value):
        before, last = tuple(value[:-1]), value[-1]
        if (before and before != prompt) or last["role"] != "assistant":
            raise record.error(f"has a {name!r} that is not one assistant's message, alone or after the prompt's own")
        value = last.get("content")
    _check(record, name, [*prompt, {"role": "assistant", "content": value}])
    return value


def _check(record: Record, name: str, messages: Any) -> None:
    try:
        check_messages(messages)
    except InputError as error:
        raise InputError(f"{record.where}: in {name!r}, {error}") from None
