"""Turns text files into a token file, ready for training.

    python data_tools/preprocess.py --input corpus/ --tokenizer tokenizer --output-prefix tokens/corpus --workers 8

writes tokens/corpus_text_document.bin and .idx (Megatron's format) and .json (how it was made), and with
--val-fraction the same as tokens/corpus_val_text_document; tokens/corpus.rejects.jsonl lists what could not be used.
docs/data.md tells more.
"""

import argparse
import time

from megatron_iberis.command import Parser, path_argument, progress_line, run, show_notices, show_summary
from megatron_iberis.text.config import DEDUP, ON_ERROR, PreprocessConfig, Shard
from megatron_iberis.text.preprocess import preprocess


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    flag = argparse.BooleanOptionalAction
    add(
        "--input",
        nargs="+",
        type=path_argument,
        required=True,
        help="text: files, folders or globs (.jsonl .txt, also .gz .zst .xz; .parquet, .arrow), - for JSON lines",
    )
    add("--tokenizer", type=path_argument, required=True, help="tokenizer folder, from train_tokenizer.py")
    add("--output-prefix", type=path_argument, required=True, help="path that the token files' names begin with")
    add("--workers", type=int, default=1, help="processes that encode (default: 1)")
    add("--json-key", default="text", help="JSON key or column that holds the text (default: text)")
    add("--prepend-bos", action=flag, default=True, help="begin each document with <|bos|>")
    add("--append-eod", action="store_true", help="end each document with <|bos|>, often with --no-prepend-bos")
    add("--min-chars", type=int, default=0, help="leave out documents of fewer characters")
    add("--val-fraction", type=float, default=0.0, help="share of documents set aside for validation (default: 0)")
    add(
        "--split-key",
        help='JSON key or column: documents with the same value up to " (" stay on one side (default: the text)',
    )
    add(
        "--on-error",
        choices=ON_ERROR,
        default=PreprocessConfig.on_error,
        help="skip faulty records, or also the rest of a damaged file, or stop at the first of either "
        "(default: skip-records, which ends at a damaged file)",
    )
    add("--dedup", choices=DEDUP, help="keep only the first of documents that are the same, or nearly (minhash)")
    add("--shuffle", type=int, metavar="SEED", help="put the documents in random order")
    add(
        "--shard",
        metavar="I/N",
        help="encode only part I of N (1/8 to 8/8), on any machine; data_tools/merge.py --shards joins the parts",
    )
    add("--resume", action="store_true", help="resume a stopped run of the same command; do nothing if it is done")
    return parser.parse_args()


def main() -> None:
    arguments = vars(parse_arguments())
    if arguments["shard"] is not None:
        arguments["shard"] = Shard.parse(arguments["shard"])
    config = PreprocessConfig(**arguments)
    started = time.monotonic()
    with progress_line("preprocessing") as progress:
        summary = preprocess(config, progress)
    show_notices(summary.notices)
    show_summary(summary, config.prefix, config.specials_per_document, time.monotonic() - started)


if __name__ == "__main__":
    raise SystemExit(run(main, interrupted="give the same command with --resume to continue from here."))
