"""Fetches a published data set from the Hugging Face Hub; without a name, lists those that it knows.

    python data_tools/download.py finedataset-13b-jpen --shards 8 --output data/finedataset

Every file is verified. Started again after a stop, it keeps the files that are there. HF_TOKEN, HF_ENDPOINT and
proxies work as usual.
"""

import sys
from pathlib import Path

from megatron_iberis.command import Parser, path_argument, print_rows, run
from megatron_iberis.hub import SETS, RemoteFile, download, find_set


def show(file: RemoteFile, number: int, of: int) -> None:
    print(f"{number} of {of}: {file.path} ({file.size / 1e6:,.1f} MB)", file=sys.stderr)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("name", nargs="?", help="name of the set")
    parser.add_argument("--output", type=path_argument, help="folder to write (default: data/NAME)")
    parser.add_argument("--shards", type=int, help="fetch only so many of its files, the first ones (default: all)")
    arguments = parser.parse_args()
    if arguments.name is None:
        print_rows([(name, f"{known.what} ({known.repository})") for name, known in SETS.items()])
        return
    find_set(arguments.name)
    output = Path(arguments.output or Path("data") / arguments.name)
    paths = download(arguments.name, output, arguments.shards, show)
    size = sum(path.stat().st_size for path in paths)
    print_rows(
        [("set", arguments.name), ("folder", str(output)), ("verified", f"{len(paths)} files, {size:,} bytes")]
    )


if __name__ == "__main__":
    raise SystemExit(run(main, "what has come is kept; run the same command again to resume."))
