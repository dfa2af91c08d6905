"""Each operation of megatron_iberis/kernels beside its reference: forward + backward, milliseconds.

    python benchmarks/kernels/training.py [--operation attention convolution loss] [--dtype fp32 bf16] [--device cpu]

The two take turns, so that whatever else the machine does meets both; medians are printed, and the median of the
rounds' ratios. The shapes are those of one layer of a small model (width 256, batch 4 x 512, vocabulary 8192);
--width, --batch, --length and --vocabulary make them larger.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
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
Case = tuple[str, Callable[..., torch.Tensor], Callable[..., torch.Tensor], list[torch.Tensor], tuple[Any, ...]]


def cases(options: argparse.Namespace, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Of each operation: its name, the operation, the reference, inputs that have gradients, other arguments."""
    length, batch, width, heads = options.length, options.batch, options.width, options.width // HEAD_SIZE

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype).requires_grad_()

    if "attention" in options.operation:
        inputs = [random(length, batch, heads, HEAD_SIZE) for _ in range(3)]
        yield "attention", attention.causal_attention, attention_reference.causal_attention, inputs, ()
    if "convolution" in options.operation:
        mixed = [(length, batch, width), (length, batch, heads), (length, batch, HEAD_SIZE), (length, batch, width)]
        inputs = [random(*shape) for shape in (*mixed, (width, 1, KERNEL))]
        functions = (short_convolution.gated_short_convolution, convolution_reference.gated_short_convolution)
        yield "convolution", *functions, inputs, ()
    if "loss" in options.operation:
        targets = torch.randint(options.vocabulary, (length * batch,), device=device)
        inputs = [random(length * batch, width), random(options.vocabulary, width)]
        loss = (linear_cross_entropy.linear_cross_entropy, loss_reference.linear_cross_entropy)
        yield "loss", *loss, inputs, (targets, SOFTCAP)
        single = (linear_cross_entropy.token_log_likelihoods, loss_reference.token_log_likelihoods)
        yield "log likelihoods", *single, inputs, (targets, SOFTCAP)


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
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=8192)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    title = f"{options.device}, {kernels_line(options.device)}"
    table = Table("operation", "dtype", "ms", "reference, ms", "times as fast", title=title)
    for dtype in options.dtype:
        for name, operation, reference, inputs, rest in cases(options, DTYPES[dtype], torch.device(options.device)):
            rounds = [[seconds(f, inputs, rest) for f in (operation, reference)] for _ in range(2 + options.rounds)]
            own, other = zip(*rounds[2:], strict=True)  # two to warm up
            ratio = statistics.median(b / a for a, b in rounds[2:])
            milliseconds = [f"{1000 * statistics.median(found):.1f}" for found in (own, other)]
            table.add_row(name, dtype, *milliseconds, f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
