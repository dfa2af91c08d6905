"""`python -m examples.sample --output FILE`."""

from __future__ import annotations

from pathlib import Path

from examples.sample.corpus import default_sample, write_corpus
from megatron_iberis.command import Parser, path_argument, run


def main() -> None:
    """Writes the corpus and prints its sizes."""
    parser = Parser(prog="python -m examples.sample", description=__doc__)
    parser.add_argument("--output", type=path_argument, required=True, help="the .jsonl file to write")
    parser.add_argument("--sample", type=path_argument, default=default_sample(), help="folder of sample documents")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated exercises")
    arguments = parser.parse_args()
    summary = write_corpus(Path(arguments.output), Path(arguments.sample), arguments.seed)
    print(f"{arguments.output}: {summary.documents} documents, {summary.file_bytes:,} bytes")
    for title, table in (("language", summary.by_language), ("kind", summary.by_kind)):
        shares = (f"{name} {size:,} ({size / summary.text_bytes:.0%})" for name, size in table.items())
        print(f"  text by {title}: {', '.join(shares)}")


if __name__ == "__main__":
    raise SystemExit(run(main))
