"""How fast a rank reads its rows, by each way to cut them, beside what a step of training uses.

    python benchmarks/reading.py data/ja_en_text_document [--context 2048] [--rows 16] [--seconds 3]

Tokens a second through the prefetcher, as training reads them, with and without data.document_mask. An index that has
to be stored is made before the clock runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from megatron_iberis.data.batches import micro_batches, prefetch
from megatron_iberis.data.order.best_fit import open_packing
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.order.megatron import open_megatron_order
from megatron_iberis.data.plan import BatchPlan
from megatron_iberis.data.rows import ConcatSource, SampleSource, best_fit_source, megatron_source
from megatron_iberis.data.token_files.reader import TokenFile

VOCAB = 1 << 31


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", help="token file, without .bin and .idx")
    parser.add_argument("--context", type=int, default=2048, help="tokens of a row (default: 2048)")
    parser.add_argument("--rows", type=int, default=16, help="rows of a micro-batch (default: 16)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: 3)")
    arguments = parser.parse_args()
    file, context = TokenFile(arguments.prefix), arguments.context
    order = SampleOrder(file.num_tokens, context, 0, shuffle=True)
    packing, megatron = open_packing(file, context), open_megatron_order(file, context, 0, order.samples_per_epoch)
    sources: dict[str, Callable[[bool], SampleSource]] = {
        "concat": lambda mask: ConcatSource(file, order, VOCAB, mask),
        "best_fit": lambda mask: best_fit_source(file, packing, 0, VOCAB, mask),
        "megatron": lambda mask: megatron_source(file, megatron, VOCAB, mask),
    }
    steps = order.samples_per_epoch // arguments.rows
    print(f"{'data.packing':<16}{'tokens/s':>14}{'documents apart':>18}")
    for name, source in sources.items():
        speeds = [speed(source(mask), arguments.rows, steps, context, arguments.seconds) for mask in (False, True)]
        print(f"{name:<16}{speeds[0]:>14,.0f}{speeds[1]:>18,.0f}", flush=True)


def speed(source: SampleSource, rows: int, steps: int, context: int, seconds: float) -> float:
    """Tokens a second, through as many epochs of `steps` micro-batches as the time allows."""
    plan = BatchPlan(global_batch=rows, micro_batch=rows, rank=0, ranks=1)
    tokens, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        for batch in prefetch(micro_batches(source, plan, 0, steps)):
            tokens += batch.tokens.numel()
            if time.perf_counter() - started > seconds:
                break
    return tokens / passed


if __name__ == "__main__":
    main()
