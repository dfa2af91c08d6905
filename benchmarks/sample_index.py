"""From opening a data set to the first batch: the formula beside Megatron's three indexes, time and memory.

    python benchmarks/sample_index.py [--documents 10000000 1000000000] [--context 2048] [--rounds 3]

Both sides know the documents' lengths and nothing else: no text is needed. Each is measured in a process of its own,
in turns (A B A B ...), the median of the rounds is printed, and the memory that it took at most beyond the lengths.

* formula: `SampleOrder` and the places of the first 512 samples; no length is looked at.
* megatron-core: document order (numpy shuffle), its compiled build_sample_idx, sample order (numpy shuffle).
* our index: the same with the index from `megatron_sample_index`, in parallel.

From --formula-only documents on (1 G) only the formula is measured: megatron-core would need some 30 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from megatron_iberis._C import megatron_sample_index
from megatron_iberis.data.order.concatenated import SampleOrder

MEAN_LENGTH = 2000


def lengths_of(documents: int) -> np.ndarray:
    """Tokens of each document, between 0 and 2 x MEAN_LENGTH."""
    return np.random.default_rng(1).integers(0, 2 * MEAN_LENGTH, documents, dtype=np.int32)


def formula(documents: int, context: int) -> dict[str, float]:
    started = time.perf_counter()
    order = SampleOrder(documents * MEAN_LENGTH, context, seed=42, shuffle=True)
    order.offsets(0, 512)
    return {"total": time.perf_counter() - started}


def megatron(documents: int, context: int) -> dict[str, float]:
    from megatron.core.datasets.helpers import build_sample_idx

    def build(lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
        return build_sample_idx(lengths, order, context, 1, int(lengths.sum(dtype=np.int64)))

    return indexed(documents, build)


def ours(documents: int, context: int) -> dict[str, float]:
    return indexed(documents, lambda lengths, order: megatron_sample_index(lengths, order, context))


def indexed(documents: int, build: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> dict[str, float]:
    """Seconds of each of the three steps, given what builds the second index."""
    lengths, random = lengths_of(documents), np.random.RandomState(42)
    times = [time.perf_counter()]
    order = np.arange(documents, dtype=np.int32)
    random.shuffle(order)
    times.append(time.perf_counter())
    samples = len(build(lengths, order)) - 1
    times.append(time.perf_counter())
    random.shuffle(np.arange(samples, dtype=np.uint32))
    times.append(time.perf_counter())
    documents_, index, shuffle = np.diff(times).tolist()
    return {"documents": documents_, "index": index, "samples": shuffle, "total": times[-1] - times[0]}


SIDES = {"formula": formula, "megatron-core": megatron, "our index": ours}


def measure(side: str, documents: int, context: int) -> dict[str, float]:
    """Runs one side in a process of its own: its seconds, and "MB" at most beyond what was there at the start."""
    words = [sys.executable, __file__, "--child", side, "--documents", str(documents), "--context", str(context)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def child(side: str, documents: int, context: int) -> None:
    """Warms everything up on a small set, then measures."""
    SIDES[side](10_000, context)
    held = 0.0 if side == "formula" else documents * 4 / 1e6  # the lengths, which a reader would map
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured = SIDES[side](documents, context)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6
    print(json.dumps(measured | {"MB": grown - held}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000_000, 1_000_000_000])
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formula-only", type=int, default=1_000_000_000)
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.documents[0], options.context)
        return
    table = Table("documents", "way", "documents s", "index s", "samples s", "total s", "memory MB")
    for documents in options.documents:
        sides = ["formula"] if documents >= options.formula_only else list(SIDES)
        found = {side: list[dict[str, float]]() for side in sides}
        for _ in range(options.rounds):
            for side in sides:
                found[side].append(measure(side, documents, options.context))
        for side, rounds in found.items():
            middle = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
            cells = [f"{middle[key]:.3f}" if key in middle else "" for key in ("documents", "index", "samples")]
            table.add_row(f"{documents:,}", side, *cells, f"{middle['total']:.6f}", f"{middle['MB']:.1f}")
    Console(width=118).print(table)


if __name__ == "__main__":
    main()
