"""`iberis generate` and `iberis bench infer`. Neither imports torch before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from megatron_iberis.command import Parser, path_argument
from megatron_iberis.inference.arguments import (
    KINDS,
    add_model_arguments,
    add_sampling_arguments,
    sampling_settings,
)


def add_generate(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds `iberis generate` to the command line."""
    command = commands.add_parser("generate", help="continue a prompt with a trained model")
    add_model_arguments(command)
    command.add_argument("--prompt", required=True)
    command.add_argument("--tokens", type=int, default=64, help="at most so many to add (default: 64)")
    command.add_argument(
        "--truncate",
        choices=["off", "left"],
        default="off",
        help="left: the beginning of a prompt that is too long for the context goes (default: it is refused)",
    )
    add_sampling_arguments(command, temperature=0.8, top_k=50)
    command.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> None:
    from megatron_iberis.inference.generation import ModelGenerator
    from megatron_iberis.inference.load import load_model
    from megatron_iberis.inference.sampling import Sampling

    sampling = Sampling(**sampling_settings(arguments))
    generator = ModelGenerator(load_model(arguments.checkpoint, arguments.dtype, arguments.device))
    text = generator.tokenizer.encode(arguments.prompt)
    if arguments.truncate == "left":
        room = generator.context - 1 - min(arguments.tokens, generator.context // 2)
        text = text[-room:]
    prompt = [generator.tokenizer.bos_id, *text]
    print(arguments.prompt, end="", flush=True)
    for piece in generator.generate(prompt, sampling, arguments.tokens):
        print(piece.text, end="", flush=True)
    print()


def add_bench(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds `iberis bench infer` to the command line."""
    group = commands.add_parser("bench", help="how fast this machine is")
    benches = group.add_subparsers(required=True, metavar="WHAT")
    command = benches.add_parser(
        "infer", help="time to the first token and a token, tokens/s, GB/s, memory; a table, and a line of JSON"
    )
    model = command.add_mutually_exclusive_group()
    model.add_argument("--recipe", default="d12", help="a model of this shape, with random weights (default: d12)")
    model.add_argument("--checkpoint", type=path_argument, help="a run folder, or one of its checkpoints")
    command.add_argument("--dtype", nargs="+", choices=KINDS, help="of the weights (default: all of the device's)")
    command.add_argument("--batch", nargs="+", type=int, default=[1, 4, 16], help="requests (default: 1 4 16)")
    command.add_argument("--prefill", type=int, default=512, help="tokens of a prompt (default: 512)")
    command.add_argument("--tokens", type=int, default=64, help="of an answer (default: 64)")
    command.add_argument("--no-reference", action="store_true", help="leave out the reference, which is slow")
    command.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU where there is one")
    command.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> None:
    import torch

    from megatron_iberis.checkpoint.weights import CheckpointWeights, whole_checkpoint
    from megatron_iberis.config import load_recipe
    from megatron_iberis.inference import bench

    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    cases = [bench.Case(batch, arguments.prefill, arguments.tokens) for batch in arguments.batch]
    if arguments.checkpoint:
        checkpoint = CheckpointWeights(whole_checkpoint(Path(arguments.checkpoint)))
        config, weights = checkpoint.recipe.model, dict(checkpoint.weights)
    else:
        config = load_recipe(arguments.recipe).model
        weights = bench.random_weights(config)
    bench.check(config, cases)
    kinds = arguments.dtype or (KINDS if device.type == "cpu" else ("bf16",))
    machine = bench.Machine.measured(device)
    print(f"{machine}\n\n{bench.HEADER}")
    speeds = []
    for speed in bench.measure(config, weights, kinds, cases, device, not arguments.no_reference):
        speeds.append(speed)
        print(bench.line(speed), flush=True)
    print(bench.json_line(machine, speeds))
