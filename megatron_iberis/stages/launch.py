"""How a stage is started: by `deepspeed FILE`, `bash FILE` or torchrun; and how it ends when something is wrong.

Recipe, environment and files are looked at before torch is imported: a mistake is answered at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from megatron_iberis.checkpoint import files, verify
from megatron_iberis.command import exit_code
from megatron_iberis.config import Recipe, load_recipe
from megatron_iberis.config.help import print_help
from megatron_iberis.parallel.node import launched_processes
from megatron_iberis.resilience import preemption  # noqa: F401 (it looks which processes are above this one)
from megatron_iberis.resilience.failure import say_once
from megatron_iberis.run_folder import RunFolder
from megatron_iberis.stages.conversation_inputs import open_conversations
from megatron_iberis.stages.inputs import open_inputs
from megatron_iberis.stages.preference_inputs import open_pairs
from megatron_iberis.stages.reinforce_inputs import open_prompts


class Inputs(Protocol):
    """What a stage's `run` is given beside the recipe, which is this one."""

    @property
    def recipe(self) -> Recipe: ...


_OPENED: dict[str, Callable[[Recipe], Inputs]] = {
    "pretrain": open_inputs,
    "finetune": open_conversations,
    "preference": open_pairs,
    "reinforce": open_prompts,
}
"""What a stage reads; it may fill in what of the recipe follows from that."""


def launch(stage: str, name: str) -> None:
    """Resolves the recipe `name` with the command line's overrides, runs stages/STAGE.py, exits with its code.

    --recipe FILE_OR_NAME takes another recipe than the stage's own. A mistake is one sentence on standard error and
    exit code 2 (command.py). It is said by a rank that has it (a file may be missing on just one), once a node.
    """
    arguments = [word for word in sys.argv[1:] if not word.startswith("--local_rank")]  # the launcher adds it

    def start() -> int:
        if "-h" in arguments or "--help" in arguments:
            print_help(load_recipe(name), f"deepspeed {sys.argv[0]}")
        recipe = load_recipe(*_recipe_and_overrides(name, arguments))
        check_processes(recipe, launched_processes())
        inputs = _OPENED[stage](recipe)
        recipe = inputs.recipe
        if recipe.run.resume and (done := steps_done(recipe)) >= recipe.train.steps:
            if os.environ.get("RANK", "0") == "0":
                print(
                    f"the run in {recipe.run.folder} is finished: {done} steps are done and train.steps is "
                    f"{recipe.train.steps}; raise it to train further"
                )
            return 0
        code: int = import_module(f"megatron_iberis.stages.{stage}").run(recipe, inputs)
        return code

    _leave(exit_code(start, say=say_once))


def steps_done(recipe: Recipe) -> int:
    """The steps after which the run in the recipe's folder has saved itself last; 0 if it has not."""
    newest, _ = files.candidates(RunFolder(recipe.run.folder).checkpoints)
    return files.step_of(newest[0]) if newest and verify.damage(newest[0], verify.none) is None else 0


def check_processes(recipe: Recipe, processes: int) -> None:
    """Raises InputError when the recipe cannot be spread over so many processes."""
    parallel = recipe.parallel
    parallel.check_processes(processes)
    if recipe.optimizer.kind == "muon":
        parallel.check_muon(processes)
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
