"""`iberis chat`. It imports no torch before it runs."""

from __future__ import annotations

import argparse

from megatron_iberis.command import Parser
from megatron_iberis.inference.arguments import add_model_arguments, add_sampling_arguments, sampling_settings


def add_chat(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds `iberis chat` to the command line."""
    what = "talk with a chat model, or have it answer once; a base model continues what it is given"
    command = commands.add_parser("chat", help=what, description=what)
    add_model_arguments(command)
    command.add_argument(
        "--prompt", help="answer this and end; without it, where there is no terminal, standard input is the prompt"
    )
    command.add_argument("--system", default="", help="what precedes the conversation")
    command.add_argument("--tokens", type=int, default=512, help="of an answer, at most (default: 512)")
    command.add_argument(
        "--truncate",
        choices=["off", "left"],
        default="off",
        help="left: where a conversation is too long for the context, its oldest turns go (default: it is refused)",
    )
    add_sampling_arguments(command, temperature=0.6, top_k=50)
    command.set_defaults(run=_chat)


def _chat(arguments: argparse.Namespace) -> int:
    from megatron_iberis.inference.sampling import Sampling
    from megatron_iberis.serving.terminal.settings import Settings

    settings = Settings(Sampling(**sampling_settings(arguments)), arguments.tokens, arguments.truncate)

    from megatron_iberis.inference.generation import ModelGenerator
    from megatron_iberis.inference.load import load_model
    from megatron_iberis.serving.terminal.session import Session
    from megatron_iberis.serving.terminal.talk import talk

    model = load_model(arguments.checkpoint, arguments.dtype, arguments.device)
    session = Session(ModelGenerator(model), model.recipe.run.stage == "chat", settings, arguments.system)
    return talk(session, f"{arguments.checkpoint}, step {model.step}", arguments.prompt)
