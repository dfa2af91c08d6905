"""How a stage is started: by `deepspeed FILE`, `bash FILE` or torchrun; and how it ends when something is wrong.

Recipe, environment and files are looked at before torch is imported: a mistake is answered at once, by one rank.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.config.help import print_help
from megatron_iberis.resilience import preemption  # noqa: F401 (it looks which processes are above this one)
from megatron_iberis.stages.inputs import open_inputs

USAGE_ERROR = 2


def launch(stage: str, name: str) -> None:
    """Resolves the recipe `name` with the command line's overrides, runs stages/STAGE.py, exits with its code.

    --recipe FILE_OR_NAME takes another recipe than the stage's own. An InputError becomes one sentence on standard
    error, from one rank of a node (a file may be missing on just one), and exit code 2.
    """
    arguments = [word for word in sys.argv[1:] if not word.startswith("--local_rank")]  # the launcher adds it
    try:
        if "-h" in arguments or "--help" in arguments:
            print_help(load_recipe(name), f"deepspeed {sys.argv[0]}")
        recipe = load_recipe(*_recipe_and_overrides(name, arguments))
        check_processes(recipe, int(os.environ.get("WORLD_SIZE", "1")))
        inputs = open_inputs(recipe)
        code = import_module(f"megatron_iberis.stages.{stage}").run(recipe, inputs)
    except ValueError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr, flush=True)
        code = USAGE_ERROR
    except KeyboardInterrupt:
        code = 130
    _leave(code)


def check_processes(recipe: Recipe, processes: int) -> None:
    """Raises InputError when the recipe cannot be spread over so many processes."""
    parallel = recipe.parallel
    parallel.check_processes(processes)
    recipe.train.accumulation(recipe.model, processes // (parallel.tp * parallel.cp))


def _recipe_and_overrides(name: str, words: Sequence[str]) -> tuple[str, list[str]]:
    overrides = []
    rest = iter(words)
    for word in rest:
        if word == "--recipe":
            name = next(rest, "")
        elif word.startswith("--recipe="):
            name = word.partition("=")[2]
        else:
            overrides.append(word)
    return name, overrides


def _leave(code: int) -> None:
    """Ends the process; a process group that is still there is left first, so that it says nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever asks for the end now has got it, with this code
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.exit(code)
