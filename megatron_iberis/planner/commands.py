"""`iberis plan`. torch is not imported before it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from megatron_iberis.command import Parser
from megatron_iberis.config import load_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.hardware.devices import CPU, DEVICES, Device


def add_plan(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds `iberis plan` to the command line."""
    names = ", ".join(device.name for device in DEVICES)
    command = commands.add_parser("plan", help="memory, time and money of a recipe at every layout, before it is run")
    command.add_argument("--recipe", default="d20", help="a name or a .toml file (default: d20)")
    command.add_argument("--gpus", type=int, required=True, help="how many; with --device cpu: ranks")
    command.add_argument("--device", default="h100", help=f"{names}, or cpu: this machine (default: h100)")
    command.add_argument("--gpus-per-node", type=int, default=0, help="default: 8")
    command.add_argument("--device-memory", type=float, default=0.0, help="GB of each, where it is not the usual")
    command.add_argument("--price", type=float, default=0.0, help="of a GPU for an hour")
    command.add_argument("--calibrate", action="store_true", help="measure this machine first, and keep that")
    command.add_argument("--json", type=Path, help="write every layout with all its figures into a file")
    command.set_defaults(run=_plan, overrides=True)


def _plan(arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe, arguments.rest)
    if arguments.gpus < 1:
        raise InputError(f"--gpus is {arguments.gpus}: it must be at least 1.")
    if recipe.train.steps == 0:
        raise InputError(
            "how many steps the recipe has is known only when its conversations are counted: give --train.steps."
        )
    from megatron_iberis.planner.plan import device_named, make_plan
    from megatron_iberis.planner.rates import rates_for
    from megatron_iberis.planner.report import as_json, lines

    device = device_named(arguments.device)
    per_node = _per_node(arguments, device)
    room = arguments.device_memory * 1e9 or device.memory / (arguments.gpus if device.name == CPU else 1)
    rates = rates_for(recipe, device, arguments.gpus, per_node, arguments.calibrate)
    plan = make_plan(recipe, arguments.gpus, device, rates, room)
    for line in lines(plan, arguments.price):
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(plan, arguments.price), indent=1) + "\n")


def _per_node(arguments: argparse.Namespace, device: Device) -> int:
    per_node: int = arguments.gpus_per_node or (arguments.gpus if device.name == CPU else device.per_node)
    if arguments.gpus > per_node and arguments.gpus % per_node:
        raise InputError(
            f"{arguments.gpus} GPUs are no whole number of nodes of {per_node}: give a multiple of {per_node}, or "
            "--gpus-per-node."
        )
    return per_node
