"""`python -m examples.sample --output FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.sample.corpus import default_sample, write_corpus


def main() -> int:
    """Writes the corpus and prints its sizes."""
    parser = argparse.ArgumentParser(prog="python -m examples.sample", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the .jsonl file to write")
    parser.add_argument("--sample", type=Path, default=default_sample(), help="folder of sample documents")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated exercises")
    arguments = parser.parse_args()
    try:
        summary = write_corpus(arguments.output, arguments.sample, arguments.seed)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.output}: {summary.documents} documents, {summary.file_bytes:,} bytes")
    for title, table in (("language", summary.by_language), ("kind", summary.by_kind)):
        shares = (f"{name} {size:,} ({size / summary.text_bytes:.0%})" for name, size in table.items())
        print(f"  text by {title}: {', '.join(shares)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
