"""NAME=PATH arguments -> the input files of each name: languages to weigh, kinds of text to compare."""

from __future__ import annotations

from collections.abc import Sequence

from megatron_iberis.errors import InputError
from megatron_iberis.text.reading.inputs import InputFile, find_inputs, is_path


def named_inputs(arguments: Sequence[str], notices: list[str] | None = None) -> dict[str, list[InputFile]]:
    """The files of each name, in order; a name may come several times. InputError if an argument has no name.

    A path with "=" in it, such as lang=ja/, has none: part of it must not be taken for another path.
    """
    paths: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if equals and is_path(argument):
            raise InputError(f"{argument} is a path without a name: write NAME={argument}, or ./ behind a name's =.")
        if not (name and equals and path):
            raise InputError(f"{argument!r} is not NAME=PATH: write it like ja=texts/ja.")
        paths.setdefault(name, []).append(path)
    return {name: find_inputs(found, notices) for name, found in paths.items()}


def are_named(arguments: Sequence[str]) -> bool:
    """Whether these are NAME=PATH arguments, rather than paths."""
    return any("=" in argument and not is_path(argument) for argument in arguments)
