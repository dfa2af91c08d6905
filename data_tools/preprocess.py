"""Turns text files into a token file, ready for training.

    python data_tools/preprocess.py --input corpus/ --tokenizer tokenizer --output-prefix tokens/corpus --workers 8

writes tokens/corpus_text_document.bin and .idx (Megatron's format) and .json (how it was made), and with
--val-fraction the same as tokens/corpus_val_text_document.
"""

import argparse
import time

from megatron_iberis.text.console import print_rows, progress_line, run, warn_rejected
from megatron_iberis.text.preprocess import PreprocessConfig, preprocess


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--input", nargs="+", required=True, help="text: files, folders or globs (.jsonl .txt .parquet, .gz .zst)"
    )
    parser.add_argument("--tokenizer", required=True, help="tokenizer folder, from train_tokenizer.py")
    parser.add_argument("--output-prefix", required=True, help="path that the token files' names begin with")
    parser.add_argument("--workers", type=int, default=1, help="processes that encode (default: 1)")
    parser.add_argument("--json-key", default="text", help="JSON key or column that holds the text (default: text)")
    parser.add_argument(
        "--prepend-bos", action=argparse.BooleanOptionalAction, default=True, help="begin each document with <|bos|>"
    )
    parser.add_argument(
        "--val-fraction",
        type=float,
        default=0.0,
        help="share of the documents to set aside for validation (default: 0)",
    )
    parser.add_argument(
        "--split-key",
        help='JSON key or column: documents with the same value up to " (" stay on one side (default: the text)',
    )
    return parser.parse_args()


def main() -> None:
    config = PreprocessConfig(**vars(parse_arguments()))
    started = time.monotonic()
    with progress_line("preprocessing") as progress:
        summary = preprocess(config, progress)
    seconds = time.monotonic() - started
    warn_rejected(summary.tally)
    total = summary.total
    for prefix, counts in zip(summary.outputs, summary.splits.values(), strict=True):
        print(f"{prefix}.bin .idx .json: {counts.documents:,} documents, {counts.tokens:,} tokens")
    megabytes = total.text_bytes / 1e6
    bytes_per_token = total.report(config.prepend_bos)["bytes_per_token"]
    tally = summary.tally
    print_rows(
        [
            ("text", f"{megabytes:,.1f} MB, {bytes_per_token} bytes a token"),
            ("read", f"{tally.read:,} documents ({tally.empty:,} empty, {tally.num_rejected:,} skipped)"),
            ("time", f"{seconds:.1f} s, {megabytes / seconds:.1f} MB/s"),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
