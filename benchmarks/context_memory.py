"""Peak memory a rank at a long context, whole and split over two context-parallel ranks.

    python benchmarks/context_memory.py [--context 32768]

Forward and backward of one sequence on CPU ranks; prints the peak resident memory above what a rank has before the
first forward pass, and the seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from typing import Any

from megatron_iberis.launcher import free_port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=32768, help="tokens of the sequence (default: 32768)")
    parser.add_argument("--depth", type=int, default=4, help="layers; the width is 64 a layer (default: 4)")
    arguments = parser.parse_args()
    print(f"{'ranks':<8}{'recompute':<12}{'GB a rank':>10}{'seconds':>10}{'loss':>10}")
    for ranks in (1, 2):
        for recompute in (False, True):
            found = spread(ranks, arguments.depth, arguments.context, recompute)
            peak, seconds = max(f["bytes"] for f in found) / 1e9, max(f["seconds"] for f in found)
            loss = found[0]["loss"]
            print(f"{ranks:<8}{recompute!s:<12}{peak:>10.2f}{seconds:>10.1f}{loss:>10.4f}", flush=True)


def spread(ranks: int, depth: int, context: int, recompute: bool) -> list[dict[str, float]]:
    """Runs `measure` on so many fresh processes; returns what each found."""
    port = free_port()
    spawn = multiprocessing.get_context("spawn")
    found: Any = spawn.Queue()
    processes = [
        spawn.Process(target=measure, args=(rank, ranks, port, depth, context, recompute, found))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    results = [found.get(timeout=1800) for _ in processes]
    for process in processes:
        process.join()
    return results


def measure(rank: int, ranks: int, port: int, depth: int, context: int, recompute: bool, found: Any) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    import torch

    from megatron_iberis.config import ModelConfig
    from megatron_iberis.model.initialization import InitialWeights, build_model, fill_parameters
    from megatron_iberis.model.parameters import shards
    from megatron_iberis.parallel.groups import ParallelGroups
    from megatron_iberis.parallel.start import start_process_group

    start_process_group(timeout_minutes=30)
    config = ModelConfig(depth=depth, head_size=64, vocab_size=8192, sequence_length=context).resolved()
    model = build_model(config, ParallelGroups.create(1, ranks), recompute=recompute)
    fill_parameters(shards(model), InitialWeights(shards(model), seed=0))
    tokens = torch.randint(config.vocab_size, (1, context), generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    loss = model(tokens, tokens.roll(-1, dims=1)) / context
    loss.backward()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found.put({"bytes": 1024.0 * (after - before), "seconds": seconds, "loss": loss.item()})


if __name__ == "__main__":
    main()
