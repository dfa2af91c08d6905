"""`python -m examples.speedrun PLAN`, which examples/speedrun.sh is."""

from __future__ import annotations

import argparse
import shlex
import sys

from examples.speedrun.plan import load_plan
from examples.speedrun.running import Speedrun
from megatron_iberis.command import Parser, path_argument, run
from megatron_iberis.errors import InputError


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog="speedrun.sh", description=__doc__)
    add = parser.add_argument
    add("plan", help="demo, d12, d20, or a .toml file (examples/speedrun/plan.py says what is in one)")
    add("--from", dest="first", default="", metavar="STAGE", help="begin with this stage, done or not")
    add("--to", dest="last", default="", metavar="STAGE", help="end with this stage")
    add("--with", dest="also", nargs="+", default=[], metavar="STAGE", help="run these optional stages as well")
    add("--folder", type=path_argument, help="where all of it lies (default: the plan's)")
    add("--set", dest="given", action="append", default=[], metavar="NAME=VALUE", help="a value of the plan")
    add("--retries", type=int, default=2, help="how often a command that died is given again (default: 2)")
    add("--dry-run", action="store_true", help="print every command that would be run")
    return parser.parse_args()


def main() -> int:
    """Runs the plan; returns the exit code."""
    arguments = parse_arguments()
    given = {}
    for each in arguments.given:
        name, equals, value = each.partition("=")
        if not equals:
            raise InputError(f"--set {each} gives no value: write it as --set NAME=VALUE.")
        given[name] = value
    plan = load_plan(arguments.plan, arguments.folder or "", given)
    stages = plan.chosen(arguments.first, arguments.last, arguments.also)
    if arguments.dry_run:
        for stage in stages:
            print(f"# {stage.name}: {stage.about}" if stage.about else f"# {stage.name}")
            print(*(shlex.join(words) for words in stage.commands), "", sep="\n")
        return 0
    code = Speedrun(plan, stages, bool(arguments.first), arguments.retries).run()
    if code == 0 and stages[-1] is plan.stages[-1]:
        print("", *plan.ends, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(run(main, "the same command goes on from here."))
