"""NAME=PATH arguments -> the input files of each name: languages to weigh, kinds of text to compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megatron_iberis.text.reading.inputs import InputFile, find_inputs


def named_inputs(arguments: Sequence[str]) -> dict[str, list[InputFile]]:
    """The files of each name, in order; a name may come several times. ValueError if an argument has no name."""
    paths: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not (name and equals and path):
            raise ValueError(f"{argument} is not NAME=PATH: write it like ja=texts/ja.")
        paths.setdefault(name, []).append(path)
    return {name: find_inputs(found) for name, found in paths.items()}


def are_named(arguments: Sequence[str]) -> bool:
    """Whether these are NAME=PATH arguments, rather than paths."""
    return any("=" in argument and not Path(argument).exists() for argument in arguments)
