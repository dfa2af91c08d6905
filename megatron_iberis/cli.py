"""The `iberis` command. Each subcommand imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from megatron_iberis.command import Parser, run
from megatron_iberis.convert.commands import add_convert
from megatron_iberis.evaluation.commands import add_eval
from megatron_iberis.inference.commands import add_bench, add_generate
from megatron_iberis.planner.commands import add_plan
from megatron_iberis.report.commands import add_report
from megatron_iberis.serving.api.commands import add_serve
from megatron_iberis.serving.terminal.commands import add_chat
from megatron_iberis.stages.data_commands import add_data


def main(words: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code (command.py)."""
    parser = Parser(
        prog="iberis",
        description="Saint Iberis from raw text to a model. Training is started by examples/*.sh.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_generate(commands)
    add_chat(commands)
    add_serve(commands)
    add_bench(commands)
    add_eval(commands)
    _add_recipe(commands)
    add_plan(commands)
    add_data(commands)
    _add_doctor(commands)
    add_convert(commands)
    add_report(commands)
    arguments, rest = parser.parse_known_args(words)
    if rest and not hasattr(arguments, "overrides"):
        parser.error(f"unrecognised: {' '.join(rest)}")
    arguments.rest = rest
    return run(lambda: arguments.run(arguments), interrupted="")


def _add_recipe(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser("recipe", help="print a recipe as resolved, with any --section.field value")
    command.add_argument("name", help="demo, d12, d20, the same after mid_ and sft_, or a .toml file")
    command.set_defaults(run=_recipe, overrides=True)


def _recipe(arguments: argparse.Namespace) -> None:
    from megatron_iberis.config import load_recipe, recipe_text

    recipe = load_recipe(arguments.name, arguments.rest)
    model = recipe.model
    print(f"# {model.parameter_count():,} parameters, {model.flops_per_token():.4g} FLOPs a token")
    print(f"# attention in layers {', '.join(map(str, model.attention_layers))}; SLC2 in the others")
    print(recipe_text(recipe), end="")


def _add_doctor(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser("doctor", help="what is installed here, and what training will run on")
    command.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> None:
    from megatron_iberis.doctor import examine

    for name, finding in examine():
        print(f"{name:<16} {finding}")
