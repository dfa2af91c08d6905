"""`python -m examples.sample --output FILE --conversations FOLDER --preferences FOLDER`: any of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.sample.conversations import QUESTIONS, ROWS, write_conversations
from examples.sample.corpus import Summary, default_sample, write_by_language, write_corpus
from examples.sample.preferences import write_preferences
from megatron_iberis.command import Parser, path_argument, run


def main() -> None:
    """Writes the corpus and prints its sizes."""
    parser = Parser(prog="python -m examples.sample", description=__doc__)
    parser.add_argument("--output", type=path_argument, help="the .jsonl file to write the texts to")
    parser.add_argument(
        "--by-language", action="store_true", help="a file a language: corpus-en.jsonl, corpus-ja.jsonl"
    )
    parser.add_argument("--conversations", type=path_argument, help="the folder to write conversations to")
    parser.add_argument("--preferences", type=path_argument, help="the folder to write pairs of answers to")
    parser.add_argument("--sample", type=path_argument, default=default_sample(), help="folder of sample documents")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated exercises")
    arguments = parser.parse_args()
    if not (arguments.output or arguments.conversations or arguments.preferences):
        parser.error("one of --output, --conversations and --preferences is required")
    if arguments.conversations:
        for language, size in write_conversations(Path(arguments.conversations), arguments.seed).items():
            print(f"{arguments.conversations}/{language}.jsonl: {ROWS:,} conversations, {size:,} bytes")
            print(
                f"{arguments.conversations}/questions-{language}.jsonl: {QUESTIONS} questions, none of them in there"
            )
    if arguments.preferences:
        for name, count in write_preferences(Path(arguments.preferences), arguments.seed).items():
            print(f"{arguments.preferences}/{name}.jsonl: {count:,} pairs")
    if arguments.output:
        _write_texts(arguments)


def _write_texts(arguments: argparse.Namespace) -> None:
    output, sample = Path(arguments.output), Path(arguments.sample)
    if arguments.by_language:
        written = write_by_language(output, sample, arguments.seed)
    else:
        written = {output: write_corpus(output, sample, arguments.seed)}
    for path, summary in written.items():
        _tell(path, summary)


def _tell(path: Path, summary: Summary) -> None:
    print(f"{path}: {summary.documents} documents, {summary.file_bytes:,} bytes")
    for title, table in (("language", summary.by_language), ("kind", summary.by_kind)):
        shares = (f"{name} {size:,} ({size / summary.text_bytes:.0%})" for name, size in table.items())
        print(f"  text by {title}: {', '.join(shares)}")


if __name__ == "__main__":
    raise SystemExit(run(main))
