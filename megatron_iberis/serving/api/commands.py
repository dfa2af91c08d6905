"""`iberis serve`. It imports neither torch nor FastAPI before it runs."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_iberis.command import Parser
from megatron_iberis.errors import InputError
from megatron_iberis.inference.arguments import add_model_arguments

if TYPE_CHECKING:
    from megatron_iberis.serving.api.opened import Opened
    from megatron_iberis.serving.api.settings import Settings

_GIB = 2**30
_EXTRA = ("fastapi", "starlette", "uvicorn", "prometheus_client")
# Tokens of prompts in a step: while others are being answered, and while nobody is.
_PREFILL = {"cpu": (32, 256), "cuda": (512, 2048)}


def add_serve(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds `iberis serve` to the command line."""
    what = "an OpenAI-compatible server of a trained model, with a page to talk to it"
    command = commands.add_parser("serve", help=what, description=what)
    add_model_arguments(command)
    command.add_argument("--model-name", default="", help="that clients ask for (default: the run folder's name)")
    command.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    command.add_argument(
        "--api-key", default="", help="that clients must send (default: what IBERIS_API_KEY is; no key if unset)"
    )
    command.add_argument("--insecure", action="store_true", help="let other machines in without a key")
    command.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME", help="another name that the server is asked by"
    )
    command.add_argument(
        "--cors-origin", action="append", default=[], metavar="URL", help="a web site whose pages may ask"
    )
    command.add_argument("--max-requests", type=int, default=16, help="answers made at a time (default: 16)")
    command.add_argument("--queue", type=int, default=128, help="answers that may wait beyond them (default: 128)")
    command.add_argument("--time-limit", type=float, default=600, help="seconds an answer may take (default: 600)")
    command.add_argument(
        "--prefill-tokens",
        type=int,
        help="of prompts in a step that others wait for, at most (default: 32 on a CPU, 512 on a GPU)",
    )
    command.add_argument(
        "--state-memory", type=float, default=1.0, metavar="GIB", help="for keys and values (default: 1)"
    )
    command.add_argument("--force-chat", action="store_true", help="let a base model take part in conversations")
    command.add_argument("--log-prompts", action="store_true", help="write prompts and answers to the log")
    command.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> None:
    try:
        from megatron_iberis.serving.api.app import Application
        from megatron_iberis.serving.api.server import Server, check_exposure, listen, serve
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise InputError(f"iberis serve needs {error.name}: pip install 'megatron_iberis[serve]'.") from None

    settings = _settings(arguments)
    check_exposure(arguments.host, settings.key, arguments.insecure)
    if arguments.state_memory <= 0:
        raise InputError(f"--state-memory is {arguments.state_memory:g}: give it at least a part of a GiB.")
    if arguments.prefill_tokens is not None and arguments.prefill_tokens < 1:
        raise InputError(f"--prefill-tokens is {arguments.prefill_tokens}: it must be at least 1.")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    listening = listen(arguments.host, arguments.port)
    import torch

    on_gpu = (arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cuda"
    shared, alone = _PREFILL["cuda" if on_gpu else "cpu"]

    def failed() -> None:
        if application.thread.opened is None:  # it was never able to answer
            server.should_exit = True

    application = Application(settings, lambda: _open(arguments), arguments.prefill_tokens or shared, alone, failed)
    server = Server(application)
    host, port = listening.getsockname()[:2]
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"{settings.model} at http://{at} (page, /v1, /docs); Ctrl-C ends it", flush=True)
    serve(server, application, listening)


def _settings(arguments: argparse.Namespace) -> Settings:
    from megatron_iberis.serving.api.security import LOOPBACK
    from megatron_iberis.serving.api.settings import Settings

    everywhere = arguments.host in ("0.0.0.0", "::", "")
    return Settings(
        model=arguments.model_name or _name(Path(arguments.checkpoint)),
        key=arguments.api_key or os.environ.get("IBERIS_API_KEY", ""),
        hosts=LOOPBACK | {arguments.host.lower()} | {name.lower() for name in arguments.allowed_host},
        any_address=everywhere,
        origins=tuple(arguments.cors_origin),
        max_requests=arguments.max_requests,
        queue=arguments.queue,
        time_limit=arguments.time_limit,
        log_prompts=arguments.log_prompts,
        force_chat=arguments.force_chat,
    )


def _name(checkpoint: Path) -> str:
    """Of the run that a folder is, or is a checkpoint of."""
    path = checkpoint.resolve()
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.name


def _open(arguments: argparse.Namespace) -> Opened:
    from megatron_iberis.inference.load import load_model
    from megatron_iberis.serving.api.opened import Opened

    model = load_model(arguments.checkpoint, arguments.dtype, arguments.device)
    opened = Opened.of(model, arguments.max_requests, int(arguments.state_memory * _GIB))
    kind = "a chat model" if opened.is_chat else "a base model"
    logging.getLogger(__name__).info(
        "%s, step %d, is ready: context %d tokens, room for %d",
        kind,
        opened.step,
        opened.engine.context,
        opened.engine.memory.tokens,
    )
    return opened
