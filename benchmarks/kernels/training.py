"""Each operation of megatron_iberis/kernels beside its reference: forward + backward, milliseconds.

    python benchmarks/kernels/training.py [--operation attention convolution loss] [--dtype fp32 bf16] [--device cpu]

"torch" is the operation by torch's operations alone (portable.py). They take turns, so that whatever else the machine
does meets all; medians are printed, and in brackets how often ours is as fast, the median of the rounds' ratios. The
shapes are those of one layer of a small model (width 256, batch 4 x 512, vocabulary 8192);
--width, --batch, --length and --vocabulary make them larger.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from megatron_iberis.kernels import attention, linear_cross_entropy, short_convolution
from megatron_iberis.kernels.attention import reference as attention_reference
from megatron_iberis.kernels.choice import kernels_line
from megatron_iberis.kernels.linear_cross_entropy import reference as loss_reference
from megatron_iberis.kernels.short_convolution import reference as convolution_reference

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
HEAD_SIZE, KERNEL, SOFTCAP = 64, 3, 15.0
Function = Callable[..., torch.Tensor]
Case = tuple[str, Function, Function | None, Function, list[torch.Tensor], tuple[Any, ...]]


def cases(options: argparse.Namespace, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Of each operation: its name, itself, by torch, the reference, inputs that have gradients, other arguments."""
    length, batch, width, heads = options.length, options.batch, options.width, options.width // HEAD_SIZE

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype).requires_grad_()

    if "attention" in options.operation:
        inputs = [random(length, batch, heads, HEAD_SIZE) for _ in range(3)]
        yield "attention", attention.causal_attention, None, attention_reference.causal_attention, inputs, ()
    if "convolution" in options.operation:
        mixed = [(length, batch, width), (length, batch, heads), (length, batch, HEAD_SIZE), (length, batch, width)]
        inputs = [random(*shape) for shape in (*mixed, (width, 1, KERNEL))]
        by_torch = partial(short_convolution.portable.gated_short_convolution, before=None, positions=None)
        reference = convolution_reference.gated_short_convolution
        yield "convolution", short_convolution.gated_short_convolution, by_torch, reference, inputs, ()
    if "loss" in options.operation:
        targets = torch.randint(options.vocabulary, (length * batch,), device=device)
        inputs = [random(length * batch, width), random(options.vocabulary, width)]
        own = linear_cross_entropy
        whole = {"vocab_start": 0, "padding": 0, "group": None}
        by_torch = partial(own.chunked.linear_cross_entropy, own.portable.softcap_pass, weights=None, **whole)
        functions = (own.linear_cross_entropy, by_torch, loss_reference.linear_cross_entropy)
        yield "loss", *functions, inputs, (targets, SOFTCAP)
        by_torch = partial(own.chunked.token_log_likelihoods, own.portable.softcap_pass, temperature=1.0, **whole)
        functions = (own.token_log_likelihoods, by_torch, loss_reference.token_log_likelihoods)
        yield "log likelihoods", *functions, inputs, (targets, SOFTCAP)


def seconds(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor], rest: tuple[Any, ...]) -> float:
    """Of one forward and backward pass."""
    started = time.perf_counter()
    torch.autograd.grad(function(*inputs, *rest).sum(), inputs)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["attention", "convolution", "loss"]
    parser.add_argument("--operation", nargs="+", choices=names, default=names)
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=8192)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    title = f"{options.device}, {kernels_line(options.device)}"
    table = Table("operation", "dtype", "ours", "torch", "reference", "reference, torch.compile", title=title)
    for dtype in options.dtype:
        for name, own, by_torch, reference, inputs, rest in cases(
            options, DTYPES[dtype], torch.device(options.device)
        ):
            compiled = torch.compile(reference, dynamic=False) if options.compile else None
            contenders = [own, by_torch, reference, compiled]
            rounds = [
                [seconds(f, inputs, rest) if f else float("nan") for f in contenders]
                for _ in range(2 + options.rounds)
            ]
            table.add_row(name, dtype, *shown(rounds[2:]))  # two to warm up
    Console().print(table)


def shown(rounds: list[list[float]]) -> list[str]:
    """Of each contender the median in milliseconds, and the rounds' median ratio to the first."""
    medians = [1000 * statistics.median(found) for found in zip(*rounds, strict=True)]
    ratios = [statistics.median(found[i] / found[0] for found in rounds) for i in range(len(medians))]
    return [
        "-" if median != median else f"{median:.1f}" + (f" ({ratio:.2f})" if i else "")
        for i, (median, ratio) in enumerate(zip(medians, ratios, strict=True))
    ]


if __name__ == "__main__":
    main()
