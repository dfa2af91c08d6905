"""Trains a tokenizer on text files and writes it into a folder.

python data_tools/train_tokenizer.py --input corpus/ more.jsonl.zst --vocab-size 65536 --output tokenizer
"""

import argparse
import time

from megatron_iberis.text.console import print_rows, run, warn_rejected
from megatron_iberis.text.inputs import find_inputs
from megatron_iberis.text.records import Tally, read_documents
from megatron_iberis.tokenizer import train
from megatron_iberis.tokenizer.training import KINDS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--input", nargs="+", required=True, help="text: files, folders or globs (.jsonl .txt .parquet, .gz .zst)"
    )
    parser.add_argument("--vocab-size", type=int, required=True, help="number of ids, specials and bytes included")
    parser.add_argument("--output", required=True, help="folder to write; a tokenizer in it is replaced")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="bpe",
        help="bpe packs more text into a token, unigram encodes faster (default: bpe)",
    )
    parser.add_argument("--json-key", default="text", help="JSON key or column that holds the text (default: text)")
    parser.add_argument(
        "--sample-mb",
        type=int,
        default=100,
        help="train on an even sample of at most this many MB; memory is about 22 times that (default: 100)",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    started = time.monotonic()
    tally = Tally()
    documents = read_documents(find_inputs(arguments.input), arguments.json_key, tally)
    texts = (document.text for document in documents)
    tokenizer = train(texts, arguments.vocab_size, arguments.output, arguments.kind, arguments.sample_mb * 10**6)
    warn_rejected(tally)
    training = tokenizer.manifest["training"]
    print_rows(
        [
            ("tokenizer", arguments.output),
            ("ids", f"{tokenizer.vocab_size:,} ({arguments.kind})"),
            ("trained on", f"{training['bytes_used'] / 1e6:,.1f} of {training['bytes'] / 1e6:,.1f} MB"),
            ("documents", f"{training['documents']:,}"),
            ("time", f"{time.monotonic() - started:.1f} s"),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
