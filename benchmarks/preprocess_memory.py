"""Peak memory of preprocess.py on a large input, which is made by repeating the text of the given files.

    python benchmarks/preprocess_memory.py --input CORPUS --tokenizer TOKENIZER [--gb 2] [--workers 1 2]

Prints, for each number of workers and each way to finish, the most resident memory of the process that reads and
writes, of the largest worker and of all together, beside the limit of 400 MB + 250 MB a worker; exit code 1 if it is
passed. The texts of each repetition begin with its number: nothing is a duplicate.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
import psutil

from megatron_iberis.text.reading.inputs import find_inputs
from megatron_iberis.text.reading.records import Tally, read_documents

COMMAND = Path(__file__).parents[1] / "data_tools" / "preprocess.py"
FINISHES = {"as it comes": [], "dedup + shuffle": ["--dedup", "exact", "--shuffle", "1"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", required=True, help="text: files, folders or globs")
    parser.add_argument("--tokenizer", required=True, help="tokenizer folder")
    parser.add_argument("--gb", type=float, default=2.0, help="bytes of text, in 10^9 (default: 2)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--folder", help="where the text and the token files lie for the time (default: a temporary one)"
    )
    arguments = parser.parse_args()
    passed = True
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        text = Path(folder) / "text.jsonl"
        size = write_text(arguments.input, int(arguments.gb * 1e9), text)
        print(f"{size / 1e9:.2f} GB of text")
        print(
            f"{'workers':<8}{'finish':<18}{'reader':>9}{'worker':>9}{'sum':>9}{'limit':>9}{'seconds':>9}{'MB/s':>7}"
        )
        for workers in arguments.workers:
            for name, options in FINISHES.items():
                base = ["--input", str(text), "--tokenizer", arguments.tokenizer, "--output-prefix", f"{folder}/out"]
                started = time.monotonic()
                reader, others = peaks([*base, "--workers", str(workers), *options])
                seconds = time.monotonic() - started
                limit = 400 + 250 * workers
                passed &= reader + sum(others) <= limit
                print(
                    f"{workers:<8}{name:<18}{reader:>6.0f} MB{max(others, default=0):>6.0f} MB"
                    f"{reader + sum(others):>6.0f} MB{limit:>6} MB{seconds:>9.1f}{size / 1e6 / seconds:>7.1f}",
                    flush=True,
                )
    return 0 if passed else 1


def write_text(names: list[str], size: int, path: Path) -> int:
    """Repeats the documents of the inputs until there are `size` bytes of text; how many there are."""
    texts = [document.text for document in read_documents(find_inputs(names), "text", Tally())]
    written = round_number = 0
    with path.open("wb") as file:
        while written < size:
            round_number += 1
            for text in texts:
                numbered = f"{round_number}: {text}"
                file.write(orjson.dumps({"text": numbered}) + b"\n")
                written += len(numbered.encode())
    return written


def peaks(arguments: list[str]) -> tuple[float, list[float]]:
    """Runs preprocess.py; the most resident memory of it and of each of its workers, in MB."""
    run = subprocess.Popen([sys.executable, str(COMMAND), *arguments], stdout=subprocess.DEVNULL)
    found: dict[int, float] = {}
    while run.poll() is None:
        try:
            for process in (psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)):
                found[process.pid] = max(found.get(process.pid, 0), peak_of(process.pid))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    if run.returncode:
        raise SystemExit(f"preprocess.py ended with exit code {run.returncode}.")
    return found.pop(run.pid), list(found.values())


def peak_of(pid: int) -> float:
    """Most resident memory of a process so far, in MB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 / 1e6 if match else 0.0


if __name__ == "__main__":
    raise SystemExit(main())
