"""Trains a tokenizer on text files and writes it into a folder; measures how much text its tokens hold.

    train_tokenizer.py --input corpus/ more.jsonl.zst --vocab-size 65536 --output tokenizer
    train_tokenizer.py --input ja=texts/ja/ en=texts/en/ --weight ja=0.5 en=0.5 --vocab-size 65536 --output tokenizer
    train_tokenizer.py --output tokenizer --evaluate news=news.jsonl code=src/ --beside cl100k_base a/tokenizer.json

The last trains nothing and measures the tokenizer that stands in --output. --evaluate can also follow a training.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from megatron_iberis.command import Parser, path_argument, print_rows, run, show_notices, warn_rejected
from megatron_iberis.errors import InputError
from megatron_iberis.text.reading.inputs import InputFile, describe_empty, find_inputs
from megatron_iberis.text.reading.named_inputs import are_named, named_inputs
from megatron_iberis.text.reading.records import Tally, read_documents
from megatron_iberis.tokenizer import Tokenizer, train
from megatron_iberis.tokenizer.comparison import Fertility, measure, open_contender, own_contender
from megatron_iberis.tokenizer.training import KINDS


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    forms = "files, folders or globs (.jsonl .txt .parquet, .gz .zst)"
    parser.add_argument(
        "--input", nargs="+", type=path_argument, default=[], help=f"text: {forms}; or NAME=PATH, to weigh them"
    )
    parser.add_argument("--vocab-size", type=int, help="number of ids, specials and bytes included")
    parser.add_argument(
        "--output", type=path_argument, required=True, help="folder to write; a tokenizer in it is replaced"
    )
    parser.add_argument(
        "--weight", nargs="+", default=[], metavar="NAME=SHARE", help="each name's share of the bytes trained on"
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="bpe",
        help="bpe packs more text into a token, unigram trains slower (default: bpe)",
    )
    parser.add_argument("--json-key", default="text", help="JSON key or column that holds the text (default: text)")
    parser.add_argument(
        "--sample-mb",
        type=int,
        default=100,
        help="train on an even sample of at most this many MB; memory is about 22 times that (default: 100)",
    )
    parser.add_argument(
        "--evaluate",
        nargs="+",
        type=path_argument,
        default=[],
        metavar="NAME=PATH",
        help="texts to measure it on",
    )
    parser.add_argument(
        "--beside",
        nargs="+",
        type=path_argument,
        default=[],
        metavar="TOKENIZER",
        help="others to measure too: a tokenizer folder, .model, tokenizer.json, tokenizer.pkl or tiktoken's name",
    )
    return parser.parse_args()


def weights_of(arguments: list[str]) -> dict[str, float]:
    weights = {}
    for argument in arguments:
        name, _, share = argument.rpartition("=")
        if name in weights:
            raise InputError(f"--weight gives {name!r} twice: give each name one share.")
        try:
            weights[name] = float(share)
        except ValueError:
            raise InputError(f"--weight {argument} is not NAME=SHARE: write it like ja=0.5.") from None
    return weights


def texts_of(files: list[InputFile], json_key: str, tally: Tally, empty: list[Path]) -> Iterator[str]:
    return (document.text for document in read_documents(files, json_key, tally, empty=empty))


def train_on(arguments: argparse.Namespace) -> Tokenizer:
    """Trains as the arguments say, and says what was done."""
    if arguments.vocab_size is None:
        raise InputError("the size of the vocabulary is missing: give --vocab-size, such as 65536.")
    started = time.monotonic()
    tally = Tally()
    notices: list[str] = []
    weights = weights_of(arguments.weight)
    named = bool(weights) or are_named(arguments.input)
    files = named_inputs(arguments.input, notices) if named else {"": find_inputs(arguments.input, notices)}
    show_notices(notices)
    empty: list[Path] = []
    sources = {name: texts_of(found, arguments.json_key, tally, empty) for name, found in files.items()}
    sample_bytes = arguments.sample_mb * 10**6
    tokenizer = train(sources, arguments.vocab_size, arguments.output, arguments.kind, sample_bytes, weights)
    show_notices(describe_empty(empty))
    warn_rejected(tally)
    training = tokenizer.manifest["training"]
    used = training["bytes_used"]
    rows = [
        ("tokenizer", arguments.output),
        ("ids", f"{tokenizer.vocab_size:,} ({arguments.kind})"),
        ("trained on", f"{used / 1e6:,.1f} of {training['bytes'] / 1e6:,.1f} MB"),
        ("documents", f"{training['documents']:,}"),
    ]
    for name, source in training["sources"].items():
        share = f"{source['bytes_used'] / 1e6:,.1f} of {source['bytes'] / 1e6:,.1f} MB"
        rows.append((f"  {name}", f"{share}, {source['bytes_used'] / used:.1%}"))
    print_rows([*rows, ("time", f"{time.monotonic() - started:.1f} s")])
    return tokenizer


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints a line for each text and tokenizer."""
    contenders = [own_contender(arguments.output), *map(open_contender, arguments.beside)]
    notices: list[str] = []
    files = named_inputs(arguments.evaluate, notices)
    show_notices(notices)
    first = max(map(len, ("text", *files)))
    second = max(len(name) for name in ("tokenizer", *(contender.name for contender in contenders)))
    print(f"{'text':{first}}  {'tokenizer':{second}}       ids  bytes/token  characters/token          tokens")

    def show(name: str, found: list[Fertility]) -> None:
        for contender, fertility in zip(contenders, found, strict=True):
            rates = f"{fertility.bytes_per_token:11.3f}  {fertility.characters_per_token:16.3f}"
            sizes = f"{contender.vocab_size:8,}  {rates}  {fertility.tokens:14,}"
            print(f"{name:{first}}  {contender.name:{second}}  {sizes}")

    totals = [Fertility() for _ in contenders]
    tally = Tally()
    empty: list[Path] = []
    for name, of_name in files.items():
        found = measure(contenders, texts_of(of_name, arguments.json_key, tally, empty))
        show(name, found)
        for total, fertility in zip(totals, found, strict=True):
            total.add(fertility)
    if len(files) > 1:
        show("all", totals)
    show_notices(describe_empty(empty))
    warn_rejected(tally)


def main() -> None:
    arguments = parse_arguments()
    if not arguments.input and not arguments.evaluate:
        raise InputError("there is nothing to do: give --input to train, or --evaluate to measure a tokenizer.")
    if arguments.input:
        train_on(arguments)
    if arguments.evaluate:
        evaluate(arguments)


if __name__ == "__main__":
    raise SystemExit(run(main))
