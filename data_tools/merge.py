"""Joins token files of the same tokenizer into one, or the shards of a text into what one machine would have made.

    python data_tools/merge.py --input tokens/a tokens/b --output-prefix tokens/all
    python data_tools/merge.py --shards tokens/corpus

The first writes tokens/all_text_document.bin, .idx and .json; the documents of tokens/a come first. The second takes
the shards tokens/corpus.I-of-N of `preprocess.py --shard I/N`, removes duplicates among all of them, shuffles and
splits as they were told, and writes tokens/corpus_text_document and the rest. docs/data.md tells more.
"""

import argparse
import time

from megatron_iberis.command import Parser, path_argument, print_rows, progress_line, run, show_notices, show_summary
from megatron_iberis.data.token_files.merging import merge
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.text.sharding import merge_shards


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--input", nargs="+", type=path_argument, help="token files, without .bin and .idx")
    what.add_argument(
        "--shards", type=path_argument, metavar="PREFIX", help="what --output-prefix was for preprocess.py --shard"
    )
    parser.add_argument(
        "--output-prefix",
        type=path_argument,
        help="path that the names of what is written begin with (default with --shards: the same PREFIX)",
    )
    arguments = parser.parse_args()
    if arguments.input and arguments.output_prefix is None:
        parser.error("--output-prefix is missing: say what the name of the merged file is to begin with")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    notices: list[str] = []
    started = time.monotonic()
    with progress_line("merging") as line:

        def progress(done: int, size: int) -> None:
            line(done, size, done)

        if arguments.shards is not None:
            config, summary = merge_shards(arguments.shards, arguments.output_prefix, progress)
        else:
            prefix = merge(arguments.input, arguments.output_prefix, progress, notices)
    seconds = time.monotonic() - started
    show_notices(notices)
    if arguments.shards is not None:
        show_summary(summary, config.prefix, config.specials_per_document, seconds)
    else:
        file = TokenFile(prefix)
        megabytes = file.num_tokens * file.dtype.itemsize / 1e6
        print(f"{prefix}.bin .idx: {file.num_documents:,} documents, {file.num_tokens:,} tokens")
        print_rows([("time", f"{seconds:.1f} s, {megabytes / seconds:,.0f} MB/s")])


if __name__ == "__main__":
    raise SystemExit(run(main))
