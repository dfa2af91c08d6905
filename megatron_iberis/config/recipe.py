"""From a TOML recipe and command-line overrides to a checked `Recipe`, and back to TOML.

* One path for both sources: text or TOML value -> `_set` -> dataclass, so a wrong key or type reads the
  same wherever it comes from.
* Unknown key, wrong type, impossible combination: InputError, one sentence with the fix.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from megatron_iberis.config.schema import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    TrainConfig,
    require,
)
from megatron_iberis.errors import InputError
from megatron_iberis.storage.atomic import write_atomic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Architecture."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Spread over processes."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizers and schedules."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Horizon and batch."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Validation and sample texts along the way."""
    data: DataConfig = field(default_factory=DataConfig)
    """Token files and tokenizer."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Saving."""
    run: RunConfig = field(default_factory=RunConfig)
    """Where the run lives."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Passed through to DeepSpeed's configuration, over what is generated (table [deepspeed] of a TOML file)."""

    def resolved(self) -> Recipe:
        """The same with every derived number filled in, checked as a whole."""
        model = self.model.resolved()
        model.check()
        self.parallel.check(model)
        self.train.check(model)
        self.evaluation.check()
        self.checkpoint.check()
        self.run.check()
        optimizer = self.optimizer.resolved(self.train.dtype)
        optimizer.check()
        require(
            not (self.train.dtype == "bf16" and self.parallel.zero_stage == 0),
            "ZeRO stage 0 keeps no fp32 master weights for bf16: set parallel.zero_stage to 1, 2 or 3, "
            "or train.dtype to fp32.",
        )
        train = replace(self.train, steps=self.train.horizon(model))
        home = os.path.expanduser  # no shell expands the "~" of --run.folder=~/run
        data = replace(self.data, val=home(self.data.val), tokenizer=home(self.data.tokenizer))
        run = replace(self.run, folder=home(self.run.folder))
        return replace(self, model=model, optimizer=optimizer, train=train, data=data, run=run)


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The resolved recipe of a TOML file or of a name in megatron_iberis/config/recipes, with overrides.

    overrides are command-line words: "--train.steps", "100" or "--train.steps=100"; "--parallel.sequence_parallel"
    alone means true. Raises InputError with one sentence on anything wrong.
    """
    values = _read_toml(_locate(str(source)))
    for key, text in parse_overrides(overrides):
        _insert(values, key, text)
    return _build(values).resolved()


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes the recipe as TOML; `load_recipe` of the file gives an equal recipe."""
    write_atomic(path, recipe_text(recipe).encode())


def recipe_text(recipe: Recipe) -> str:
    """The recipe as TOML."""
    table: dict[str, Any] = {}
    for section in fields(recipe):
        value = getattr(recipe, section.name)
        if isinstance(value, dict):
            if value:
                table[section.name] = value
        else:
            table[section.name] = {
                f.name: list(v) if isinstance(v := getattr(value, f.name), tuple) else v for f in fields(value)
            }
    return tomli_w.dumps(table)


def parse_overrides(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs (dotted key, `_Text`) from command-line words; InputError on a word that is no override."""
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
            yield key, _Text(text)
        elif index < len(words) and not words[index].startswith("--"):
            yield key, _Text(words[index])
            index += 1
        else:
            yield key, _Switch("true")


def _locate(source: str) -> Path:
    path = Path(os.path.expanduser(source))
    if path.suffix == ".toml":
        require(path.is_file(), f"there is no recipe file {source}: give the path of a .toml file or a name.")
        return path
    known = sorted(p.stem for p in RECIPES.glob("*.toml"))
    require(source in known, f"there is no recipe '{source}': use one of {', '.join(known)}, or a .toml file.")
    return RECIPES / f"{source}.toml"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None


def _insert(values: dict[str, Any], key: str, text: str) -> None:
    """Puts a dotted command-line key into the nested table, as text; `_build` gives it its type."""
    *sections, name = key.split(".")
    table = values
    for section in sections:
        table = table.setdefault(section, {})
        require(isinstance(table, dict), f"--{key}: '{section}' is a value, not a section.")
    table[name] = text


class _Text(str):
    """A value that came from the command line, still to be converted to its field's type."""


class _Switch(_Text):
    """What stands for the value where the command line gave none: enough for a true-or-false setting."""


def _build(values: dict[str, Any]) -> Recipe:
    sections = {f.name: f for f in fields(Recipe)}
    built: dict[str, Any] = {}
    for name, table in values.items():
        require(name in sections, f"unknown section [{name}]{_suggest(name, sections)}")
        require(isinstance(table, dict), f"{name} is a section: write it as [{name}] with settings below it.")
        if name == "deepspeed":
            built[name] = _plain(table)
            continue
        section_type = sections[name].default_factory
        assert isinstance(section_type, type)
        hints = typing.get_type_hints(section_type)
        for key in table:
            require(key in hints, f"unknown setting {name}.{key}{_suggest(key, hints, name)}")
        built[name] = section_type(**{k: _convert(f"{name}.{k}", v, hints[k]) for k, v in table.items()})
    return Recipe(**built)


def _suggest(key: str, known: typing.Iterable[str], section: str = "") -> str:
    prefix = f"{section}." if section else ""
    close = difflib.get_close_matches(key, list(known), n=1)
    if close:
        return f": did you mean {prefix}{close[0]}?"
    return f": use one of {', '.join(prefix + k for k in known)}."


def _plain(value: Any) -> Any:
    """DeepSpeed's own table: command-line text is read as a TOML value, or kept as text."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, _Text):
        try:
            return tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            return str(value)
    return value


def _convert(key: str, value: Any, kind: Any) -> Any:
    """The value as the field's type; InputError names the setting, the value and what is wanted."""
    require(kind is bool or not isinstance(value, _Switch), f"{key} has no value: write --{key} VALUE.")
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        for choice in typing.get_args(kind):
            if str(value) == str(choice) and isinstance(value, (_Text, type(choice))):
                return choice
        choices = " or ".join(map(str, typing.get_args(kind)))
        raise InputError(f"{key} is {value!s}: it must be {choices}.")
    if origin is tuple:
        items = [i for i in value.split("|") if i] if isinstance(value, _Text) else value
        require(
            isinstance(items, list) and all(isinstance(i, str) for i in items),
            f"{key} must be a list of texts (on the command line: separated by |).",
        )
        return tuple(items)
    converted = _from_text(value, kind) if isinstance(value, _Text) else _from_toml(value, kind)
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    if isinstance(converted, float) and not math.isfinite(converted):
        converted = None
    require(converted is not None, f"{key} is {str(value)!r}: it must be {names[kind]}.")
    return converted


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
