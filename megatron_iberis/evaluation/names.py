"""From names, as a user writes them, to what opens the benchmarks. Any case will do, hyphens or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast, get_args

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Benchmark
from megatron_iberis.evaluation.chat import CHAT_CORE, ChatTask, chat_names, open_chat
from megatron_iberis.evaluation.core import open_core
from megatron_iberis.evaluation.japanese import open_japanese
from megatron_iberis.tasks import FILES
from megatron_iberis.tasks.conversations import open_questions
from megatron_iberis.tasks.published import Language
from megatron_iberis.tokenizer import Tokenizer

Openers = Mapping[str, Callable[[], Benchmark]]
BASE = ("core", "ja")
"""What a base model is measured by where nothing else is asked for."""


def base_benchmarks(names: Sequence[str], root: str, tokenizer: Tokenizer, limit: int = 0) -> Openers:
    """Of texts that go on: "core" (the bundle's tasks), "ja" (the JA mean's), or names of either's tasks.

    root: the folder of the sets and the bundle. InputError for an unknown name, or where there is no bundle.
    """
    wanted, openers = {_plain(name) for name in names}, dict[str, Callable[[], Benchmark]]()
    japanese = open_japanese(root, tokenizer, limit)
    if others := wanted - {"ja", *map(_plain, japanese)}:
        core = open_core(root, tokenizer, limit)
        _refuse_unknown(others, [*BASE, *japanese, *core])
        openers.update((name, core[name]) for name in core if "core" in wanted or _plain(name) in wanted)
    openers.update((name, japanese[name]) for name in japanese if "ja" in wanted or _plain(name) in wanted)
    return openers


def chat_benchmarks(
    names: Sequence[str], root: str, tokenizer: Tokenizer, limit: int = 0, allow_weak: bool = False
) -> Openers:
    """Of conversations: "chatcore" (its six tasks), names of tasks, or files; no names: all tasks. Errors as above.

    A file, "mine.jsonl" or "ja=mine.jsonl", is one of questions with their answers. allow_weak: code that the model
    writes may run where it can't be shut in.
    """
    every = chat_names()
    files = [name for name in names if name.endswith(FILES)]
    wanted = {_plain(name) for name in names if name not in files} if names else set(map(_plain, every))
    _refuse_unknown(wanted, ["chatcore", *every])
    chosen = [name for name in every if _plain(name) in wanted or (name in CHAT_CORE and "chatcore" in wanted)]
    openers: dict[str, Callable[[], Benchmark]] = dict(open_chat(root, tokenizer, chosen, limit, allow_weak))
    for file in files:
        language, path = _language_and_path(file)
        name = Path(path).stem
        if name in openers:
            raise InputError(f"two sets are named {name!r}: give {path} another name, scores stand under it.")
        openers[name] = partial(_open_file, path, language, tokenizer, limit)
    return openers


def _language_and_path(name: str) -> tuple[Language, str]:
    """Of "ja=mine.jsonl"; without a language it is English."""
    language, equals, path = name.partition("=")
    if equals and language in get_args(Language):
        return cast(Language, language), path
    return "en", name


def _open_file(path: str, language: Language, tokenizer: Tokenizer, limit: int) -> ChatTask:
    return ChatTask(open_questions(path, language), tokenizer, limit)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _refuse_unknown(wanted: set[str], known: Sequence[str]) -> None:
    if unknown := wanted - set(map(_plain, known)):
        raise InputError(f"there is no task {min(unknown)!r} to evaluate: choose among {', '.join(known)}.")
