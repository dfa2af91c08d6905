"""`python -m examples.sample --output FILE --conversations FOLDER`: either or both."""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.sample.conversations import ROWS, write_conversations
from examples.sample.corpus import default_sample, write_corpus
from megatron_iberis.command import Parser, path_argument, run


def main() -> None:
    """Writes the corpus and prints its sizes."""
    parser = Parser(prog="python -m examples.sample", description=__doc__)
    parser.add_argument("--output", type=path_argument, help="the .jsonl file to write the texts to")
    parser.add_argument("--conversations", type=path_argument, help="the folder to write conversations to")
    parser.add_argument("--sample", type=path_argument, default=default_sample(), help="folder of sample documents")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated exercises")
    arguments = parser.parse_args()
    if not arguments.output and not arguments.conversations:
        parser.error("one of --output and --conversations is required")
    if arguments.conversations:
        for language, size in write_conversations(Path(arguments.conversations), arguments.seed).items():
            print(f"{arguments.conversations}/{language}.jsonl: {ROWS:,} conversations, {size:,} bytes")
    if arguments.output:
        _write_texts(arguments)


def _write_texts(arguments: argparse.Namespace) -> None:
    summary = write_corpus(Path(arguments.output), Path(arguments.sample), arguments.seed)
    print(f"{arguments.output}: {summary.documents} documents, {summary.file_bytes:,} bytes")
    for title, table in (("language", summary.by_language), ("kind", summary.by_kind)):
        shares = (f"{name} {size:,} ({size / summary.text_bytes:.0%})" for name, size in table.items())
        print(f"  text by {title}: {', '.join(shares)}")


if __name__ == "__main__":
    raise SystemExit(run(main))
