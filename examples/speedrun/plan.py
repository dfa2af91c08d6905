"""A plan: stages of commands with places to fill in, as a TOML file holds them.

    folder = "runs/mine"                      # all that the plan makes lies there

    [values]
    text = "{folder}/text.jsonl"              # --set text=other.jsonl
    base = ""                                 # --set base="--train.steps 100"

    [[stages]]
    name = "base"
    about = "pretraining"
    commands = ["bash examples/pretrain_d20.sh --run.resume --run.folder {folder}/base {*base}"]

`{name}` is a value inside a word, `{*name}` the words of one. A command must be one that can be given again after it
was stopped. `makes` names what a stage's command refuses to make twice: where it is there, the stage is done.
`optional = true` leaves a stage out unless it is asked for.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from megatron_iberis.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PLANS = Path(__file__).with_name("plans")
_PLACE = re.compile(r"\{(\w+)\}")
_WORDS = re.compile(r"\{\*(\w+)\}")


@dataclass(frozen=True)
class Stage:
    """commands: as words, filled in; makes: a path, or ""."""

    name: str
    about: str
    commands: tuple[tuple[str, ...], ...]
    makes: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Plan:
    """ends: what to tell the user at the end, lines."""

    name: str
    folder: Path
    stages: tuple[Stage, ...]
    ends: tuple[str, ...] = ()

    def chosen(self, first: str = "", last: str = "", also: Sequence[str] = ()) -> tuple[Stage, ...]:
        """The stages from `first` to `last` (""; the ends), and of those that are optional the ones in `also`.

        InputError for a stage that there is not, or an order the other way round.
        """
        names = [stage.name for stage in self.stages]
        for name in filter(None, (first, last, *also)):
            if name not in names:
                raise InputError(f"the plan {self.name} has no stage {name!r}: choose among {', '.join(names)}.")
        start, end = names.index(first) if first else 0, names.index(last) if last else len(names) - 1
        if start > end:
            raise InputError(f"{first} comes after {last} in the plan {self.name}: exchange --from and --to.")
        within = self.stages[start : end + 1]
        return tuple(stage for stage in within if not stage.optional or stage.name in (*also, first, last))


@dataclass
class Values(Mapping[str, str]):
    """What places stand for: given ones, and those that are found out when they are asked for."""

    given: dict[str, str]
    found: Mapping[str, Callable[[], str]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        if name not in self.given:
            self.given[name] = self.found[name]()
        return self.given[name]

    def __iter__(self) -> Any:
        return iter({**self.found, **self.given})

    def __len__(self) -> int:
        return len({**self.found, **self.given})


def load_plan(name: str, folder: str = "", given: Mapping[str, str] | None = None) -> Plan:
    """The plan of that name, or of a .toml file, filled in. folder, given: in place of the plan's own folder, values.

    InputError naming file and stage if something in it is wrong.
    """
    path = Path(name) if name.endswith(".toml") else PLANS / f"{name}.toml"
    table = _read(path, name)
    values = Values({"folder": folder or str(table.get("folder", ""))}, _FOUND)
    if not values["folder"]:
        raise InputError(f'{path} names no folder: add folder = "runs/NAME", or give --folder.')
    own = table.get("values", {})
    if unknown := set(given or {}) - set(own):
        raise InputError(f"the plan {name} has no value {min(unknown)!r}: it has {', '.join(own) or 'none'}.")
    for key, text in {**own, **(given or {})}.items():
        values.given[key] = _filled(str(text), values, f"{path}, values.{key}")
    stages = tuple(_stage(stage, values, f"{path}, stage {n}") for n, stage in enumerate(table.get("stages", []), 1))
    names = [stage.name for stage in stages]
    if not stages or len(set(names)) < len(names):
        raise InputError(f"{path} must have [[stages]], each with a name of its own.")
    ends = tuple(_filled(line, values, f"{path}, ends") for line in table.get("ends", []))
    return Plan(path.stem, Path(values["folder"]), stages, ends)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(plan.stem for plan in PLANS.glob("*.toml")))
        raise InputError(f"there is no plan {name!r}: use one of {known}, or a .toml file.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from None


def _stage(table: Mapping[str, Any], values: Values, where: str) -> Stage:
    known = {each.name for each in fields(Stage)}
    if unknown := set(table) - known:
        raise InputError(
            f"{where} has {min(unknown)!r}, which stages have not: they have {', '.join(sorted(known))}."
        )
    for needed in ("name", "commands"):
        if not table.get(needed):
            raise InputError(f"{where} has no {needed}: add it.")
    return Stage(
        name=table["name"],
        about=table.get("about", ""),
        commands=tuple(tuple(_words(command, values, where)) for command in table["commands"]),
        makes=_filled(table.get("makes", ""), values, where),
        optional=table.get("optional", False),
    )


def _words(command: str, values: Values, where: str) -> list[str]:
    words: list[str] = []
    for word in shlex.split(command):
        several = _WORDS.fullmatch(word)
        words += shlex.split(_value(several[1], values, where)) if several else [_filled(word, values, where)]
    return words


def _filled(text: str, values: Values, where: str) -> str:
    return _PLACE.sub(lambda place: _value(place[1], values, where), text)


def _value(name: str, values: Values, where: str) -> str:
    if name not in values:
        raise InputError(f"{where}: there is no value {{{name}}}: add it to [values], or use {', '.join(values)}.")
    return values[name]


def _dtype() -> str:
    """fp32 where a CPU multiplies more quickly in it than in bf16."""
    import torch

    from megatron_iberis.hardware.measure import faster_dtype

    return faster_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _processes() -> str:
    """For evaluations: one a GPU; on a CPU two, each with its share of the cores."""
    import torch

    return str(torch.cuda.device_count() or min(2, os.cpu_count() or 1))


_FOUND: dict[str, Callable[[], str]] = {
    "cores": lambda: str(os.cpu_count() or 1),
    "dtype": _dtype,
    "processes": _processes,
}
"""Values that every plan has."""
