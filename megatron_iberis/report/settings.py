"""A recipe as a report shows it: the settings that are not the usual ones, without the folders of a machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import tomli_w

from megatron_iberis.config import Recipe, recipe_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PATHS = {
    "data": ("val", "tokenizer"),
    "run": ("folder", "start_from"),
}


def short_path(path: str, names: int = 2) -> str:
    """Its last names: enough to know it by, and nothing of whose machine it was. What is no path stays."""
    parts = PurePath(path).parts
    return "/".join(parts[-names:]) if "/" in path else path


def own_settings(recipe: Recipe) -> str:
    """As TOML: what differs from the defaults, and all of the architecture."""
    usual = _tables(Recipe().resolved())
    tables = _tables(replace(recipe, deepspeed={}))
    _shorten(tables)
    found: dict[str, Any] = {}
    for name, table in tables.items():
        whole = name == "model"
        kept = {key: value for key, value in table.items() if whole or value != usual[name].get(key)}
        for mixture in ("mixture", "val"):
            if name == "tasks" and mixture in kept:
                kept[mixture] = {each: _given(source, each) for each, source in kept[mixture].items()}
        if kept:
            found[name] = kept
    if recipe.deepspeed:
        found["deepspeed"] = recipe.deepspeed
    return tomli_w.dumps(found).strip()


def _tables(recipe: Recipe) -> dict[str, Any]:
    return tomllib.loads(recipe_text(recipe))


def _shorten(tables: dict[str, Any]) -> None:
    """Cuts all that is a path to its last names; where a machine keeps tasks says nothing."""
    for name, keys in _PATHS.items():
        for key in keys:
            tables[name][key] = short_path(tables[name][key], {"start_from": 3, "folder": 1}.get(key, 2))
    tables["evaluation"]["tasks_root"] = tables["tasks"]["root"] = tables["tasks"]["cache"] = ""
    tables["data"]["train"] = short_mixture(tables["data"]["train"])
    for key in ("data", "val"):
        tables["preference"][key] = [short_path(path) for path in tables["preference"][key]]
    for key in ("mixture", "val"):
        sources, short = tables["tasks"][key], dict[str, Any]()
        for source, values in sources.items():
            new = _free(short_path(source), short.__contains__)
            short[new] = {**values, "task": short_path(values["task"])}
        tables["tasks"][key] = short


def short_mixture(text: str) -> str:
    """Of "0.7 /a/b/c | 0.3 /a/d": weights and names."""
    parts = []
    for part in text.split("|"):
        weight, path = re.match(r"\s*([0-9.eE+-]+\s+)?(.*)", part.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
        parts.append(f"{weight or ''}{short_path(path)}")
    return " | ".join(parts)


def _free(name: str, taken: Callable[[str], bool]) -> str:
    """The name, with a number behind it where another has it."""
    number = 1
    while taken(name if number == 1 else f"{name} ({number})"):
        number += 1
    return name if number == 1 else f"{name} ({number})"


def _given(source: dict[str, Any], name: str) -> dict[str, Any]:
    """A source's settings that say something."""
    usual = {"task": name, "split": "", "start": 0, "rows": 0, "epochs": 1, "settings": {}}
    return {key: value for key, value in source.items() if value != usual.get(key)}
