"""What the commands that ask a model share on their command lines. No torch here."""

from __future__ import annotations

import argparse
from typing import Any

from megatron_iberis.command import path_argument

KINDS = ("fp32", "bf16", "int8")
"""What weights may be kept as (`load.Kind`)."""
_SAMPLING = {
    "temperature": (float, "0: the likeliest token each time"),
    "top_k": (int, "only so many of the likeliest tokens; 0: all"),
    "top_p": (float, "only the likeliest tokens that make up this share"),
    "min_p": (float, "only tokens at least this share as likely as the likeliest"),
    "repetition_penalty": (float, "above 1: less of what was there already"),
    "seed": (int, "of the draw"),
}


def add_model_arguments(command: argparse.ArgumentParser) -> None:
    """--checkpoint, --dtype, --device: `load_model`'s."""
    command.add_argument(
        "--checkpoint", type=path_argument, required=True, help="a run folder, or one of its checkpoints"
    )
    command.add_argument("--dtype", choices=KINDS, help="of the weights (default: bf16 on a GPU, fp32 on a CPU)")
    command.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU where there is one")


def add_sampling_arguments(command: argparse.ArgumentParser, **defaults: float) -> None:
    """A word for each setting of `sampling.Sampling` that people use; defaults other than its own."""
    for name, (kind, what) in _SAMPLING.items():
        said = f" (default: {defaults[name]})" if name in defaults else ""
        word = f"--{name.replace('_', '-')}"
        command.add_argument(word, type=kind, default=defaults.get(name), help=what + said)


def sampling_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given of them, for `Sampling`."""
    return {name: value for name in _SAMPLING if (value := getattr(arguments, name)) is not None}
