"""Training speed on this machine's CPU beside a plain-PyTorch baseline: one table, in under 10 minutes on 2 cores.

    python -m benchmarks.cpu [--quick] [--threads N] [--output FILE] [--compare FILE]          (make bench)

* forward + backward: Iberis beside the reference model in the same precision. "bf16 products" has fp32 tensors whose
  matrix products alone are in bf16, a precision between the two; its baseline is the fp32 reference. "compiled": the
  layers by torch.compile. "documents apart": data.document_mask, with documents of 128 tokens on average.
* loss beyond its products: head and loss, forward and backward, less the time of its three matrix products alone in
  the same chunks; of the reference's loss the same.
* whole step: the trainer's engine (DeepSpeed, one process, ZeRO 1, optimizer included) beside upstream's training in
  plain torch (benchmarks/cpu/upstream.py): in fp32, all that it has on a CPU, or in bf16 as it has it on a GPU.
  Newton-Schulz is in bf16 everywhere.
* peak memory: of fresh processes that make a few steps, beyond what they have after their imports.

All that is timed takes turns; figures are medians, the ratio is the median of the rounds' ratios of ours to the
baseline (of speeds: more is better; of milliseconds and MB: less is). Exit code 0 also where a target is not met;
1 where --compare finds a ratio that is more than 5 % worse.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.cpu import results, rows
from benchmarks.cpu.shapes import Scale, full
from megatron_iberis.command import Parser, run, say_error
from megatron_iberis.parallel.node import cores_of_this_node


def physical_cores() -> int:
    """Those that this process may use, without their hyper-threads."""
    return max(1, min(psutil.cpu_count(logical=False) or 1, cores_of_this_node()))


def main(arguments: Sequence[str] | None = None, scale: Scale | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave the large shape out")
    parser.add_argument("--threads", type=_threads, default=physical_cores(), help="default: all physical cores")
    parser.add_argument("--output", type=Path, metavar="FILE", help="a JSON file for all figures")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="an earlier --output that is not to be undercut")
    options = parser.parse_args(arguments)
    scale = scale or full()
    setting = results.Setting.here(scale, options.threads)
    earlier = results.read(options.compare, setting) if options.compare else None  # before the minutes, not after
    left_out = rows.why_without_large(scale, options.quick)
    found = rows.measure(scale, options.threads, not left_out, lambda line: print(line, file=sys.stderr, flush=True))
    machine = setting.machine
    results.show(found, f"{machine['processor']}, {options.threads} threads, torch {machine['torch']}")
    if left_out:
        print(left_out)
    if options.output:
        results.write(options.output, results.Measurement(setting, found))
    problems = list(results.worse(found, earlier)) if earlier is not None else []
    for problem in problems:
        say_error(problem)
    return 1 if problems else 0


def _threads(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of threads: give 1 or more")
    return int(value)


if __name__ == "__main__":
    sys.exit(run(main, "nothing was written."))
