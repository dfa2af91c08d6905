"""The `iberis` command. Each subcommand imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from megatron_iberis.command import Parser, run
from megatron_iberis.convert.commands import add_convert
from megatron_iberis.inference.arguments import add_model_arguments, add_sampling_arguments, sampling_settings


def main(words: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code (command.py)."""
    parser = Parser(
        prog="iberis",
        description="Saint Iberis from raw text to a model. Training is started by examples/*.sh.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(commands)
    _add_recipe(commands)
    _add_doctor(commands)
    add_convert(commands)
    arguments, rest = parser.parse_known_args(words)
    if rest and not hasattr(arguments, "overrides"):
        parser.error(f"unrecognised: {' '.join(rest)}")
    arguments.rest = rest
    return run(lambda: arguments.run(arguments), interrupted="")


def _add_generate(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser("generate", help="continue a prompt with a trained model")
    add_model_arguments(command)
    command.add_argument("--prompt", required=True)
    command.add_argument("--tokens", type=int, default=64, help="at most so many to add (default: 64)")
    add_sampling_arguments(command, temperature=0.8, top_k=50)
    command.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> None:
    from megatron_iberis.inference.generation import ModelGenerator
    from megatron_iberis.inference.load import load_model
    from megatron_iberis.inference.sampling import Sampling

    sampling = Sampling(**sampling_settings(arguments))
    generator = ModelGenerator(load_model(arguments.checkpoint, arguments.dtype, arguments.device))
    prompt = [generator.tokenizer.bos_id, *generator.tokenizer.encode(arguments.prompt)]
    print(arguments.prompt, end="", flush=True)
    for piece in generator.generate(prompt, sampling, arguments.tokens):
        print(piece.text, end="", flush=True)
    print()


def _add_recipe(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser("recipe", help="print a recipe as resolved, with any --section.field value")
    command.add_argument("name", help="demo, d12, d20, or a .toml file")
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
