"""From names, as a user writes them, to what opens the benchmarks. Any case will do, hyphens or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.benchmark import Benchmark
from megatron_iberis.evaluation.chat import CHAT_CORE, chat_names, open_chat
from megatron_iberis.evaluation.core import open_core
from megatron_iberis.evaluation.japanese import open_japanese
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
    """Of conversations: "chatcore" (its six tasks), or names of tasks; no names: all. Errors as above.

    allow_weak: code that the model writes may run where it can't be shut in.
    """
    every = chat_names()
    wanted = {_plain(name) for name in names or every}
    _refuse_unknown(wanted, ["chatcore", *every])
    chosen = [name for name in every if _plain(name) in wanted or (name in CHAT_CORE and "chatcore" in wanted)]
    return open_chat(root, tokenizer, chosen, limit, allow_weak)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _refuse_unknown(wanted: set[str], known: Sequence[str]) -> None:
    if unknown := wanted - set(map(_plain, known)):
        raise InputError(f"there is no task {min(unknown)!r} to evaluate: choose among {', '.join(known)}.")
