"""Joins token files of the same tokenizer into one.

    python data_tools/merge.py --input tokens/a tokens/b --output-prefix tokens/all

writes tokens/all_text_document.bin, .idx and .json; the documents of tokens/a come first.
"""

import time

from megatron_iberis.command import Parser, path_argument, print_rows, progress_line, run
from megatron_iberis.data.token_files.merging import merge
from megatron_iberis.data.token_files.reader import TokenFile


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--input", nargs="+", type=path_argument, required=True, help="token files, without .bin and .idx"
    )
    parser.add_argument(
        "--output-prefix", type=path_argument, required=True, help="path that the token file's name begins with"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    with progress_line("merging") as progress:
        prefix = merge(arguments.input, arguments.output_prefix, lambda done, size: progress(done, size, done))
    file = TokenFile(prefix)
    seconds = time.monotonic() - started
    megabytes = file.num_tokens * file.dtype.itemsize / 1e6
    print(f"{prefix}.bin .idx: {file.num_documents:,} documents, {file.num_tokens:,} tokens")
    print_rows([("time", f"{seconds:.1f} s, {megabytes / seconds:,.0f} MB/s")])


if __name__ == "__main__":
    raise SystemExit(run(main))
