"""`iberis data`: its command line. What a subcommand needs is imported when it runs."""

from __future__ import annotations

import argparse

from megatron_iberis.command import Parser
from megatron_iberis.stages.data_overlap import add_overlap


def add_data(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command with its subcommands."""
    command = commands.add_parser("data", help="what a recipe trains on")
    parts = command.add_subparsers(required=True, metavar="COMMAND")
    show = parts.add_parser(
        "show",
        help="print rows of conversations as training sees them, with any --section.field value",
        description="Prints rows of conversations as training sees them: what is trained on is coloured, or has ^ "
        "below it where there are no colours. Any --section.field value of the recipe may follow.",
    )
    show.add_argument("recipe", help="sft_demo, sft_d12, sft_d20, mid_demo, mid_d12, mid_d20, or a .toml file")
    show.add_argument("-n", type=_count, default=3, metavar="N", help="rows to print (default: 3)")
    show.add_argument("--first", type=_count, default=0, metavar="ROW", help="the first one (default: 0)")
    show.set_defaults(run=_show, overrides=True)
    add_overlap(parts)


def _count(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"'{word}' is not a whole number of 0 or more.")
    return int(word)


def _show(arguments: argparse.Namespace) -> None:
    from megatron_iberis.config import load_recipe
    from megatron_iberis.stages.show import show

    show(load_recipe(arguments.recipe, arguments.rest), arguments.first, arguments.n)
