"""What choosing a token costs: `choose` at 65,536 tokens, beside torch's sort and topk of the same logits.

    python benchmarks/sampling.py [--vocabulary 65536] [--rounds 15]

The logits are normal with deviation 3 (sharp) and 0.3 (flat: top_p keeps most of them), 1,500 tokens of prompt and
500 of answer for the penalties. Median of the rounds, each of 20 tokens; the ways take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from megatron_iberis.inference.sampling import Sampling, choose

WAYS = {
    "greedy": Sampling(temperature=0, seed=1),
    "temperature 0.8, top_k 50": Sampling(temperature=0.8, top_k=50, seed=1),
    "the same, repetition penalty": Sampling(temperature=0.8, top_k=50, repetition_penalty=1.1, seed=1),
    "the same, 5 log-probabilities": Sampling(temperature=0.8, top_k=50, logprobs=5, seed=1),
    "temperature 1": Sampling(seed=1),
    "top_p 0.9": Sampling(top_p=0.9, seed=1),
    "min_p 0.05": Sampling(min_p=0.05, seed=1),
}
CONTEXT, ANSWER = list(range(1500)), list(range(500))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    sharp = [torch.randn(arguments.vocabulary, generator=generator) * 3 for _ in range(20)]
    flat = [logits / 10 for logits in sharp]
    work: dict[str, Callable[[torch.Tensor], object]] = {
        name: lambda logits, s=sampling: choose(logits, s, 0, len(ANSWER), CONTEXT, ANSWER)  # type: ignore[misc]
        for name, sampling in WAYS.items()
    }
    work["(torch: sort)"] = lambda logits: logits.sort(descending=True)
    work["(torch: topk 50)"] = lambda logits: logits.topk(50)
    seconds: dict[tuple[str, bool], list[float]] = {(name, which): [] for name in work for which in (True, False)}
    for _ in range(arguments.rounds):
        for (name, is_sharp), found in seconds.items():
            started = time.perf_counter()
            for logits in sharp if is_sharp else flat:
                work[name](logits)
            found.append((time.perf_counter() - started) / len(sharp))
    table = Table("ms a token", "sharp", "flat", title=f"{arguments.vocabulary:,} tokens")
    for name in work:
        table.add_row(name, *(f"{1e3 * statistics.median(seconds[name, which]):.2f}" for which in (True, False)))
    Console().print(table)


if __name__ == "__main__":
    main()
