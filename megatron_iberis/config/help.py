"""The page of --help: every setting with its docstring, its bounds and its default."""

from __future__ import annotations

import typing
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Annotated

from megatron_iberis.config.checks import bounds_of, spoken
from megatron_iberis.config.recipe import Recipe


def print_help(recipe: Recipe, program: str) -> typing.NoReturn:
    """Prints all settings with those of `recipe` as defaults, and ends the process with 0."""
    import tyro

    for section in fields(recipe):
        config = getattr(recipe, section.name)
        if is_dataclass(config):
            _tell_bounds(type(config))
    # As the command line is read by `overrides.py`: names with underscores, a value after every setting.
    form = (tyro.conf.FlagConversionOff,)
    tyro.cli(Recipe, default=recipe, args=["--help"], prog=program, use_underscores=True, config=form)
    raise AssertionError("tyro ends the process after --help")


def _tell_bounds(section: type) -> None:
    """Marks the fields of a section, in this process that is about to end, so that tyro tells their bounds."""
    import tyro

    hints = typing.get_type_hints(section)
    for name, bounds in bounds_of(section).items():
        hint = tyro.conf.arg(help_behavior_hint=partial("({}; default: {})".format, spoken(bounds)))
        section.__annotations__[name] = Annotated[hints[name], hint]
