"""Turns text files into a token file, ready for training.

    python data_tools/preprocess.py --input corpus/ --tokenizer tokenizer --output-prefix tokens/corpus --workers 8

writes tokens/corpus_text_document.bin and .idx (Megatron's format) and .json (how it was made), and with
--val-fraction the same as tokens/corpus_val_text_document; tokens/corpus.rejects.jsonl lists what could not be used.
docs/data.md tells more.
"""

import argparse
import time

from megatron_iberis.command import path_argument, print_rows, progress_line, run, show_notices, warn_rejected
from megatron_iberis.text.config import DEDUP, ON_ERROR, PreprocessConfig
from megatron_iberis.text.preprocess import finished, preprocess
from megatron_iberis.text.summary import Summary


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    add("--on-error", choices=ON_ERROR, default="skip", help="what to do with a faulty record (default: skip)")
    add("--dedup", choices=DEDUP, help="keep only the first of documents that are the same, or nearly (minhash)")
    add("--shuffle", type=int, metavar="SEED", help="put the documents in random order")
    add("--resume", action="store_true", help="go on where the same command was stopped")
    return parser.parse_args()


def main() -> None:
    config = PreprocessConfig(**vars(parse_arguments()))
    if done := finished(config):
        for prefix in done:
            print(f"{prefix}.bin .idx .json: finished before, nothing is left to do")
        return
    started = time.monotonic()
    with progress_line("preprocessing") as progress:
        summary = preprocess(config, progress)
    seconds = time.monotonic() - started
    show_notices(summary.notices)
    warn_rejected(summary.tally)
    for prefix, counts in zip(summary.outputs, summary.splits.values(), strict=True):
        print(f"{prefix}.bin .idx .json: {counts.documents:,} documents, {counts.tokens:,} tokens")
    total, tally = summary.total, summary.tally
    bytes_per_token = total.report(config.specials_per_document)["bytes_per_token"]
    rows = [
        ("text", f"{total.text_bytes / 1e6:,.1f} MB, {bytes_per_token} bytes a token"),
        ("read", f"{tally.read:,} documents ({_left_out(summary)})"),
        ("time", f"{seconds:.1f} s, {total.text_bytes / 1e6 / seconds:.1f} MB/s"),
    ]
    if tally.empty + tally.num_rejected:
        rows.append(("left out", f"{config.output_prefix}.rejects.jsonl"))
    if summary.duplicates:
        rows.append(("duplicates", f"{config.output_prefix}.duplicates.jsonl"))
    print_rows(rows)


def _left_out(summary: Summary) -> str:
    tally = summary.tally
    return (
        f"{tally.empty:,} empty, {tally.too_short:,} too short, {tally.num_rejected:,} skipped, "
        f"{summary.duplicates:,} duplicates"
    )


if __name__ == "__main__":
    raise SystemExit(run(main, interrupted="the same command with --resume goes on from here."))
