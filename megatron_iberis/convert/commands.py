"""`iberis convert`: its command line. What a subcommand needs is imported when it runs."""

from __future__ import annotations

import argparse

from megatron_iberis.command import Parser
from megatron_iberis.convert.incoming import add_from_hf, add_from_nanochat
from megatron_iberis.convert.outgoing import add_to_hf


def add_convert(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command with its subcommands."""
    command = commands.add_parser("convert", help="a trained model to and from other programs' forms")
    forms = command.add_subparsers(required=True, metavar="FORM")
    add_to_hf(forms)
    add_from_hf(forms)
    add_from_nanochat(forms)
