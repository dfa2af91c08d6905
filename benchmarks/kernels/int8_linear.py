"""Products with int8 weights at the shapes of d12, beside torch's of fp32, bf16 and int8: what decoding can reach.

    python benchmarks/kernels/int8_linear.py [--rows 1 4 8 16] [--threads 2] [--rounds 9] [--without fp32 int8pack]

* A round goes once through all 65 matrices of d12, as one step of decoding does: 309 M weights, which no cache keeps.
  The kinds of weights take turns. Medians are printed, a shape's of all its matrices.
* Bandwidth is that of a sum over 0.5 GB in huge pages by as many threads, the best of all rounds; rates are those of
  products of large square matrices.
* int8pack is torch's `_weight_int8pack_mm`: rows in bf16, one scale an output.
* fp32 and bf16 lie in torch's memory, as F.linear finds them in a model; int8 asks for huge pages.
* Last come single calls, down to those that have next to nothing to do, alone and right after a parallel operation of
  torch, whose threads are still on the look-out then.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from megatron_iberis.hardware.measure import peak_flops
from megatron_iberis.kernels.huge_pages import on_huge_pages
from megatron_iberis.kernels.int8_linear import native, quantize

E, MLP, HEADS, VOCAB = 1024, 5632, 16, 65536
# Of one token of d12: SLC2's projections in one, attention's in one, outputs of both, MLP, head.
MATRICES = {
    (2 * E + HEADS + E // HEADS, E): 10,
    (3 * E, E): 6,
    (E, E): 16,
    (MLP, E): 16,
    (E, MLP): 16,
    (VOCAB, E): 1,
}
LOOKOUT = 0.05  # seconds, after which the threads of a pool, torch's or ours, sleep and disturb no other
Shape = tuple[int, int]
Product = Callable[[torch.Tensor], torch.Tensor]


def int8(weight: torch.Tensor, group: int, threads: int) -> Product:
    packed = quantize(weight, group)
    return lambda x: native.int8_linear(x, packed, threads)


def int8pack(weight: torch.Tensor) -> Product:
    scales = (weight.abs().amax(1) / 127).bfloat16()
    values = (weight / scales.float().unsqueeze(1)).round().clamp(-127, 127).to(torch.int8)
    return lambda x: torch.ops.aten._weight_int8pack_mm(x, values, scales)


def dense(weight: torch.Tensor, dtype: torch.dtype) -> Product:
    held = weight.to(dtype, copy=True)
    return lambda x: F.linear(x, held)


def kinds(threads: int) -> dict[str, tuple[Callable[[torch.Tensor], Product], torch.dtype, float]]:
    """Of each: how to make a product of a weight, the type of its rows, bytes a weight."""
    return {
        "int8": (lambda w: int8(w, 32, threads), torch.float32, 1 + 2 / 32),
        "int8, groups of 64": (lambda w: int8(w, 64, threads), torch.float32, 1 + 2 / 64),
        "bf16": (lambda w: dense(w, torch.bfloat16), torch.bfloat16, 2),
        "fp32": (lambda w: dense(w, torch.float32), torch.float32, 4),
        "int8pack": (int8pack, torch.bfloat16, 1),
    }


def seconds(product: Product, x: torch.Tensor) -> float:
    started = time.perf_counter()
    product(x)
    return time.perf_counter() - started


def step(model: list[tuple[Shape, Product]], rows: int, dtype: torch.dtype) -> dict[Shape, list[float]]:
    """Seconds of each product of one step."""
    found = defaultdict(list)
    inputs = {i: torch.randn(rows, i).to(dtype) for i in (E, MLP)}
    for shape, product in model:
        found[shape].append(seconds(product, inputs[shape[1]]))
    return found


def bandwidth(data: torch.Tensor) -> float:
    """Bytes a second that reading alone can reach."""
    return data.nbytes / min(seconds(torch.sum, data) for _ in range(3))


def int8_rate() -> float:
    """Operations a second of torch's product of int8 matrices."""
    a = torch.ones(2048, 2048, dtype=torch.int8)
    return 2 * 2048**3 / min(seconds(lambda x: torch._int_mm(x, x), a) for _ in range(5))


def calls(threads: int, tries: int = 500) -> dict[str, float]:
    """Microseconds of single products of weights in the caches, alone and right after a parallel sum of torch."""
    large = torch.randn(1 << 18)
    found = {}
    for outputs, inputs in ((16, 32), (256, E), (MLP, E)):
        weight, x = quantize(torch.randn(outputs, inputs)), torch.randn(1, inputs)
        for number in dict.fromkeys((1, threads)):
            for torch_threads in dict.fromkeys((0, 1, threads)):  # 0: nothing before it
                torch.set_num_threads(torch_threads or threads)
                time.sleep(LOOKOUT)
                times = []
                for _ in range(tries):
                    if torch_threads:
                        large.add_(1.0)
                    times.append(seconds(lambda x, w=weight, n=number: native.int8_linear(x, w, n), x))
                after = f", torch's before it: {torch_threads}" if torch_threads else ""
                found[f"{outputs} x {inputs}, threads: {number}{after}"] = 1e6 * statistics.median(times)
    return found


def measure(options: argparse.Namespace) -> tuple[dict[tuple[str, int], list[dict[Shape, list[float]]]], float]:
    """Times of all steps, by kind and rows; the bandwidth."""
    chosen = {name: kind for name, kind in kinds(options.threads).items() if name not in options.without}
    models: dict[str, list[tuple[Shape, Product]]] = {name: [] for name in chosen}
    for shape, count in MATRICES.items():
        for _ in range(count):
            weight = torch.randn(shape)
            for name, (make, _, _) in chosen.items():
                models[name].append((shape, make(weight)))
    found, reading, data = defaultdict(list), 0.0, on_huge_pages(torch.ones(1 << 27))
    for number in range(1 + options.rounds):
        reading = max(reading, bandwidth(data))
        for rows in options.rows:
            for name, (_, dtype, _) in chosen.items():
                time.sleep(LOOKOUT)
                times = step(models[name], rows, dtype)
                if number:  # the first warms up
                    found[name, rows].append(times)
    return found, reading


def report(
    options: argparse.Namespace,
    machine: dict[str, float],
    found: dict[tuple[str, int], list[dict[Shape, list[float]]]],
    single: dict[str, float],
) -> None:
    made = kinds(options.threads)
    used = [name for name in made if name not in options.without]
    title = f"{native.NAME}, {options.threads} threads; " + ", ".join(f"{v:.0f} {k}" for k, v in machine.items())
    shapes = Table("O x I", "N", *used, title=f"{title}\nmilliseconds, GB/s of weights")
    for shape in MATRICES:
        for rows in options.rows:
            cells = []
            for name in used:
                median = statistics.median(t for each in found[name, rows] for t in each[shape])
                cells.append(f"{1e3 * median:.3f}, {made[name][2] * shape[0] * shape[1] / median / 1e9:.1f}")
            shapes.add_row(f"{shape[0]} x {shape[1]}", str(rows), *cells)
    weights = sum(o * i * count for (o, i), count in MATRICES.items())
    steps = Table("one step of d12", "N", "ms", "best", "tokens/s", "x N = 1", "GB/s", "of bandwidth", "GFLOP/s")
    figures = []
    for name in used:
        for rows in options.rows:
            times = [sum(sum(part) for part in each.values()) for each in found[name, rows]]
            median, one = statistics.median(times), options.rows[0]
            first = statistics.median(sum(sum(part) for part in each.values()) for each in found[name, one])
            rate, flops = made[name][2] * weights / median / 1e9, 2 * rows * weights / median / 1e9
            share = rate / machine["GB/s"]
            figures.append({"kind": name, "rows": rows, "ms": 1e3 * median, "best_ms": 1e3 * min(times)})
            figures[-1] |= {"tokens/s": rows / median, "GB/s": rate, "of_bandwidth": share, "GFLOP/s": flops}
            cells = [
                f"{1e3 * median:.1f}",
                f"{1e3 * min(times):.1f}",
                f"{rows / median:.1f}",
                f"{median / first:.2f}",
            ]
            steps.add_row(name, str(rows), *cells, f"{rate:.1f}", f"{100 * share:.0f} %", f"{flops:.0f}")
    single_calls = Table("one call", "microseconds")
    for name, value in single.items():
        single_calls.add_row(name, f"{value:.1f}")
    console = Console(width=140)
    for table in (shapes, steps, single_calls):
        console.print(table)
    print(json.dumps({"kernel": native.NAME, "machine": machine, "steps": figures, "microseconds": single}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16], help="rows of x")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--without", nargs="+", choices=list(kinds(1)), default=[], help="kinds to leave out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device("cpu")
    with torch.inference_mode():
        found, reading = measure(options)
        machine = {
            "GB/s": reading / 1e9,
            "bf16 GFLOP/s": peak_flops(device, "bf16").flops / 1e9,
            "fp32 GFLOP/s": peak_flops(device, "fp32").flops / 1e9,
            "int8 GOP/s": int8_rate() / 1e9,
        }
        report(options, machine, found, calls(options.threads))


if __name__ == "__main__":
    main()
