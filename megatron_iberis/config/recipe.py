"""From a TOML recipe and command-line overrides to a checked `Recipe`, and back to TOML.

* One path for both sources: text or TOML value -> `overrides.convert` -> dataclass, so a wrong key or type reads the
  same wherever it comes from.
* Unknown key, wrong type, value out of its bounds, impossible combination: InputError, one sentence with the fix.
* Nothing in this folder imports torch, so that `iberis --help` and a wrong recipe both answer at once.
"""

from __future__ import annotations

import os
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from megatron_iberis.config.checks import automatic, check_bounds, require
from megatron_iberis.config.data import DataConfig
from megatron_iberis.config.deepspeed import check_deepspeed
from megatron_iberis.config.evaluation import EvaluationConfig
from megatron_iberis.config.model import ModelConfig
from megatron_iberis.config.optimizer import OptimizerConfig
from megatron_iberis.config.overrides import Switch, Text, convert, insert, parse_overrides, plain, suggest
from megatron_iberis.config.parallel import ParallelConfig
from megatron_iberis.config.preference import PreferenceConfig
from megatron_iberis.config.reinforce import ReinforceConfig
from megatron_iberis.config.run import CheckpointConfig, RunConfig
from megatron_iberis.config.tasks import TasksConfig
from megatron_iberis.config.train import TrainConfig
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
    tasks: TasksConfig = field(default_factory=TasksConfig)
    """Conversations."""
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    """Pairs of answers."""
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    """Answers of the model's own."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Saving."""
    run: RunConfig = field(default_factory=RunConfig)
    """Where the run lives."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Passed through to DeepSpeed's configuration, over what is generated (table [deepspeed] of a TOML file)."""

    def resolved(self) -> Recipe:
        """The same with every derived number filled in, checked as a whole."""
        recipe = replace(
            self,
            model=self.model.resolved(),
            optimizer=self.optimizer.resolved(self.train.dtype),
            data=self.data.resolved(),
            tasks=self.tasks.resolved(),
            preference=self.preference.resolved(),
            run=self.run.resolved(),
        )
        for section in fields(recipe):
            config = getattr(recipe, section.name)
            if is_dataclass(config):
                check_bounds(section.name, config)
        model = recipe.model
        model.check()
        recipe.parallel.check(model)
        recipe.train.check(model)
        recipe.tasks.check()
        recipe.reinforce.check(model.softcap)
        recipe.checkpoint.check()
        recipe.run.check()
        check_deepspeed(recipe.deepspeed)
        counted = bool(recipe.tasks.mixture or recipe.preference.data)
        require(
            not (self.train.dtype == "bf16" and self.parallel.zero_stage == 0),
            "ZeRO stage 0 keeps no fp32 master weights for bf16: set parallel.zero_stage to 1, 2 or 3, "
            "or train.dtype to fp32.",
        )
        require(
            not (self.train.compile and self.parallel.zero_stage == 3),
            "train.compile does not go with ZeRO stage 3, whose hooks in the layers would be compiled anew for each: "
            "set parallel.zero_stage to 1 or 2, or train.compile to false.",
        )
        require(
            not (self.train.compile and (recipe.preference.data or recipe.reinforce.active)),
            "train.compile is for rows of one length, and pairs and answers come in many: set it to false.",
        )
        require(
            self.train.device_batch > 0 or not (recipe.preference.data or recipe.reinforce.active),
            "train.device_batch cannot be found for pairs and answers, whose memory is not planned: set a number.",
        )
        require(
            counted or recipe.run.stage == "chat" or recipe.train.epochs == 0,
            "train.epochs counts passes over conversations and tasks.mixture is empty: give one, or preference.data, "
            "or train.steps.",
        )
        train = self.train
        if counted and not (train.steps or train.epochs):
            train = replace(train, epochs=1)
        return replace(recipe, train=replace(train, steps=train.horizon(model)))


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The resolved recipe of a TOML file or of a name in megatron_iberis/config/recipes, with overrides.

    overrides are command-line words: "--train.steps", "100" or "--train.steps=100"; "--parallel.sequence_parallel"
    alone means true. Raises InputError with one sentence on anything wrong.
    """
    values = _read_toml(_locate(str(source)))
    for key, text in parse_overrides(overrides):
        insert(values, key, text)
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
            table[section.name] = _as_table(value)
    return tomli_w.dumps(table)


def _as_table(section: Any) -> dict[str, Any]:
    """A section's settings as TOML has them; a table of named tables for those that are several of a kind."""
    table: dict[str, Any] = {}
    for setting in fields(section):
        value = getattr(section, setting.name)
        if isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, dict):
            value = {name: _as_table(each) if is_dataclass(each) else each for name, each in value.items()}
        table[setting.name] = value
    return table


def _locate(source: str) -> Path:
    if source.endswith(".toml"):
        return Path(os.path.expanduser(source))
    known = sorted(p.stem for p in RECIPES.glob("*.toml"))
    require(source in known, f"there is no recipe '{source}': use one of {', '.join(known)}, or a .toml file.")
    return RECIPES / f"{source}.toml"


def _read_toml(path: Path) -> dict[str, Any]:
    """The tables of a recipe file, with or without a byte order mark; InputError when there are none to be had."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"there is no recipe file {path}: give the path of a .toml file or a name.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: give the path of a .toml file in it.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a recipe that you may read.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not valid TOML, which is text in UTF-8: save it as that.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None
    require(bool(values), f"{path} holds no settings: give a recipe with at least one section, or the name of one.")
    return values


def _build(values: dict[str, Any]) -> Recipe:
    sections = {f.name: f for f in fields(Recipe)}
    built: dict[str, Any] = {}
    for name, table in values.items():
        require(name in sections, f"unknown section [{name}]{suggest(name, sections)}")
        require(isinstance(table, dict), f"{name} is a section: write it as [{name}] with settings below it.")
        if name == "deepspeed":
            built[name] = plain(table)
            continue
        section_type = sections[name].default_factory
        assert isinstance(section_type, type)
        built[name] = _section(name, table, section_type)
    return Recipe(**built)


def _section(name: str, table: dict[str, Any], section_type: Any) -> Any:
    """A section, or one of the named tables inside it, from a table of its settings."""
    hints = typing.get_type_hints(section_type)
    settings: dict[str, Any] = {}
    for key, value in table.items():
        require(key in hints, f"unknown setting {name}.{key}{suggest(key, hints, name)}")
        if typing.get_origin(hints[key]) is dict:
            settings[key] = _several(f"{name}.{key}", value, typing.get_args(hints[key])[1])
        elif value == "auto" and key in automatic(section_type):
            settings[key] = 0
        else:
            settings[key] = convert(f"{name}.{key}", value, hints[key])
    return section_type(**settings)


def _several(name: str, value: Any, kind: Any) -> dict[str, Any]:
    """Tables by name; the command line may give names alone ("a | b"), each with all that is usual."""
    if kind is Any:
        require(isinstance(value, dict), f"{name} is a table: write its settings as --{name}.NAME VALUE.")
        return plain(value)
    if isinstance(value, Text) and not isinstance(value, Switch):
        value = {each.strip(): {} for each in value.split("|") if each.strip()}
    require(
        isinstance(value, dict) and all(isinstance(table, dict) for table in value.values()),
        f"{name} must be a table of tables, one a name (on the command line also names alone, separated by |).",
    )
    return {each: _section(f"{name}.{each}", table, kind) for each, table in value.items()}
