"""Makes a tokenizer folder of nanochat's tokenizer, with its very ids. The pickle is not run.

python data_tools/import_tokenizer.py ~/.cache/nanochat/tokenizer/tokenizer.pkl --output tokenizer
"""

from megatron_iberis.command import Parser, path_argument, print_rows, run
from megatron_iberis.tokenizer import import_nanochat
from megatron_iberis.tokenizer.tokenizer import check_output


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("input", type=path_argument, help="nanochat's tokenizer.pkl, or its folder")
    parser.add_argument(
        "--output", type=path_argument, required=True, help="folder to write; a tokenizer in it is replaced"
    )
    arguments = parser.parse_args()
    check_output(arguments.output)
    tokenizer = import_nanochat(arguments.input)
    tokenizer.save(arguments.output)
    print_rows([("tokenizer", arguments.output), ("ids", f"{tokenizer.vocab_size:,} (tiktoken)")])


if __name__ == "__main__":
    raise SystemExit(run(main))
