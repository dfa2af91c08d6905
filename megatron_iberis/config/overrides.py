"""Words of the command line to settings, and any value, from there or from TOML, to its setting's type."""

from __future__ import annotations

import difflib
import math
import sys
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from megatron_iberis.config.checks import require
from megatron_iberis.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Text(str):
    """A value that came from the command line, still to be converted to its field's type."""


class Switch(Text):
    """What stands for the value where the command line gave none: enough for a true-or-false setting."""


def parse_overrides(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs (dotted key, `Text`) from command-line words; InputError on a word that is no override."""
    for word in words:
        strange = any("\ud800" <= letter <= "\udfff" for letter in word)  # what Python makes of other bytes
        require(not strange, f"{word!r} is not UTF-8: write the settings in UTF-8, names of files included.")
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        require(
            word.startswith("--") and "." in word,
            f"'{word}' is no setting: write overrides as --section.field value, for example --train.steps 100.",
        )
        key, equals, text = word[2:].partition("=")
        if equals:
            yield key, Text(text)
        elif index < len(words) and not words[index].startswith("--"):
            yield key, Text(words[index])
            index += 1
        else:
            yield key, Switch("true")


def insert(values: dict[str, Any], key: str, text: str) -> None:
    """Puts a dotted command-line key into the nested table, as text; `_build` gives it its type."""
    *sections, name = key.split(".")
    table = values
    for section in sections:
        table = table.setdefault(section, {})
        require(isinstance(table, dict), f"--{key}: '{section}' is a value, not a section.")
    table[name] = text


def suggest(key: str, known: Iterable[str], section: str = "") -> str:
    """What ends a sentence about an unknown key: the known one that looks most like it, or all of them."""
    prefix = f"{section}." if section else ""
    close = difflib.get_close_matches(key, list(known), n=1)
    if close:
        return f": did you mean {prefix}{close[0]}?"
    return f": use one of {', '.join(prefix + k for k in known)}."


def plain(value: Any) -> Any:
    """A value of DeepSpeed's own table: command-line text is read as a TOML value, or kept as text."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, Text):
        try:
            return tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            return str(value)
    return value


def convert(key: str, value: Any, kind: Any) -> Any:
    """The value as the field's type; InputError names the setting, the value and what is wanted."""
    require(kind is bool or not isinstance(value, Switch), f"{key} has no value: write --{key} VALUE.")
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        for choice in typing.get_args(kind):
            if str(value) == str(choice) and isinstance(value, (Text, type(choice))):
                return choice
        choices = " or ".join(map(str, typing.get_args(kind)))
        raise InputError(f"{key} is {shown(value)}: it must be {choices}.")
    if origin is tuple:
        items = [i for i in value.split("|") if i] if isinstance(value, Text) else value
        require(
            isinstance(items, list) and all(isinstance(i, str) for i in items),
            f"{key} must be a list of texts (on the command line: separated by |).",
        )
        return tuple(items)
    converted = _from_text(value, kind) if isinstance(value, Text) else _from_toml(value, kind)
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    if isinstance(converted, float) and not math.isfinite(converted):
        converted = None
    if isinstance(converted, int) and not -(2**63) <= converted < 2**63:
        raise InputError(f"{key} is {shown(value)}: it must be a whole number of 64 bits.")
    require(converted is not None, f"{key} is {shown(value)}: it must be {names[kind]}.")
    return converted


def shown(value: Any) -> str:
    """A value as a message quotes it: whole if it is short."""
    text = str(value)
    return repr(text if len(text) <= 100 else f"{text[:80]}...")


def _from_text(text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}.get(text.lower())
        if kind is int:
            number = float(text)  # 1e6 is a whole number too
            return int(text) if text.lstrip("+-").isdigit() else int(number) if number.is_integer() else None
        return float(text) if kind is float else str(text)
    except (ValueError, OverflowError):
        return None


def _from_toml(value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is kind else None
