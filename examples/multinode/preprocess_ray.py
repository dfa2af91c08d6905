"""Text -> token files on a Ray cluster: Ray Data hands out the shards, the last step merges them.

    python examples/multinode/preprocess_ray.py --input corpus --tokenizer tokenizer --output-prefix tokens/corpus \
        --shards 64 --workers 8

All machines must see the files under the same, absolute names, and have this package. Needs pip install 'ray[data]'.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from os.path import abspath
from typing import Any

import ray

from megatron_iberis.text.config import PreprocessConfig, Shard
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.sharding import merge_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", type=abspath, required=True)
    parser.add_argument("--tokenizer", type=abspath, required=True)
    parser.add_argument("--output-prefix", type=abspath, required=True)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="CPUs of a shard")
    parser.add_argument("--dedup", choices=("exact", "minhash"))
    parser.add_argument("--shuffle", type=int, metavar="SEED")
    options = vars(parser.parse_args())
    count = options.pop("shards")
    config = PreprocessConfig(**options, resume=True)  # a task that Ray starts again continues

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        summary = preprocess(replace(config, shard=Shard(int(row["id"]) + 1, count)))
        return {"documents": summary.total.documents}

    shards = ray.data.range(count, override_num_blocks=count).map(encode, num_cpus=config.workers)
    print(f"{sum(row['documents'] for row in shards.iter_rows()):,} documents in {count} shards")
    _, summary = merge_shards(config.output_prefix)
    for prefix, counts in zip(summary.outputs, summary.splits.values(), strict=True):
        print(f"{prefix}.bin .idx .json: {counts.documents:,} documents, {counts.tokens:,} tokens")


if __name__ == "__main__":
    main()
