"""Shows what is in a token file: counts, lengths and, with --document, one document's text.

python data_tools/inspect_dataset.py tokens/corpus_text_document --document 3 --tokenizer tokenizer
python data_tools/inspect_dataset.py tokens/corpus_text_document --verify
"""

from megatron_iberis.command import Parser, path_argument, print_rows, run
from megatron_iberis.data.token_files.inspection import decode_document, describe, histogram, open_token_file
from megatron_iberis.data.token_files.verification import verify
from megatron_iberis.errors import InputError
from megatron_iberis.tokenizer import Tokenizer


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("prefix", type=path_argument, help="token file, without .bin and .idx")
    parser.add_argument("--document", type=int, help="number of a document to print instead, from 0")
    parser.add_argument(
        "--tokenizer",
        type=path_argument,
        help="tokenizer folder, for --document, and for --verify without a manifest",
    )
    parser.add_argument("--verify", action="store_true", help="read all of it, and check ids, counts and sha256")
    arguments = parser.parse_args()
    file = open_token_file(arguments.prefix)
    tokenizer = Tokenizer.load(arguments.tokenizer) if arguments.tokenizer else None
    if arguments.verify:
        print_rows(verify(file, tokenizer))
        return
    if arguments.document is None:
        print_rows(describe(file))
        print("\ntokens a document, number of documents")
        print("\n".join(histogram(file)))
        return
    if tokenizer is None:
        raise InputError("a document can't be printed without its tokenizer: give --tokenizer FOLDER.")
    print(decode_document(file, arguments.document, tokenizer))


if __name__ == "__main__":
    raise SystemExit(run(main))
