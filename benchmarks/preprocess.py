"""Text to token files: our command beside Megatron's way of doing it and SentencePiece's bare encode, in turns.

    python benchmarks/preprocess.py --input ja=corpus/ja_*.jsonl.zst en=corpus/en_*.jsonl.zst

For each kind of tokenizer (65,536 pieces, trained on this very text), each name's text apart and all names mixed:

* ours: `data_tools/preprocess.py` as a user starts it, with 1 and 2 workers, on so many copies of the file that it
  reads 1 GB: the start of the processes, half a second, is no matter with the amounts that it is made for.
* baseline: what Megatron-LM's tool does, with 1 and 2 workers: a process pool, one JSON line a task item (32 a
  message), `encode_as_ids` of the whole text, lists of ids back, one conversion and one write a document.
* bare: nothing but SentencePiece's `encode`, one thread.

MB/s of UTF-8 text, the median of the rounds, and the ratios. Before anything is timed, the token files of both ways
are compared byte by byte.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import sentencepiece

from megatron_iberis.text.reading.named_inputs import named_inputs
from megatron_iberis.text.reading.records import Tally, read_documents
from megatron_iberis.tokenizer import train

AMOUNT = 1_000_000_000  # bytes of text that our command reads
PREPROCESS = Path(__file__).parent.parent / "data_tools" / "preprocess.py"
_sp: Any  # of a worker of the baseline


def ours(files: list[Path], tokenizer: Path, output: Path, workers: int) -> Path:
    command = [sys.executable, str(PREPROCESS), "--input", *map(str, files), "--tokenizer", str(tokenizer)]
    options = ["--output-prefix", str(output / "ours"), "--workers", str(workers), "--no-prepend-bos"]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return output / "ours_text_document.bin"


def baseline(file: Path, tokenizer: Path, output: Path, workers: int) -> Path:
    lengths = []
    with (
        multiprocessing.get_context("fork").Pool(workers, _load, (tokenizer,)) as pool,
        file.open(encoding="utf-8") as lines,
        (output / "baseline.bin").open("wb") as out,
    ):
        for ids in pool.imap(_encode, lines, 32):
            array = np.array(ids, dtype=np.uint16)
            out.write(array.tobytes(order="C"))
            lengths.append(array.size)
    np.array(lengths, dtype=np.int32).tofile(output / "baseline.lengths")
    return output / "baseline.bin"


def _load(tokenizer: Path) -> None:
    global _sp
    _sp = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))


def _encode(line: str) -> list[int]:
    ids: list[int] = _sp.encode_as_ids(json.loads(line)["text"])
    return ids


def bare(texts: list[str], tokenizer: Path) -> None:
    _load(tokenizer)
    for text in texts:
        _sp.encode(text)


def write_texts(texts: Iterable[str], path: Path, limit: int) -> tuple[list[str], int]:
    """A JSON line a text, up to `limit` bytes; the texts and their bytes."""
    kept, size = [], 0
    with path.open("wb") as file:
        for text in texts:
            if size >= limit:
                break
            kept.append(text)
            size += len(text.encode())
            file.write(orjson.dumps({"text": text}) + b"\n")
    return kept, size


def texts_of(names: list[str]) -> dict[str, list[str]]:
    """The documents of each name in an order of chance, and "mixed": all of them."""
    found = {
        # SentencePiece makes a space of U+2581: for equal ids it must not occur.
        name: [document.text.replace("\u2581", "") for document in read_documents(files, "text", Tally())]
        for name, files in named_inputs(names).items()
    }
    if len(found) > 1:
        found["mixed"] = list(itertools.chain.from_iterable(found.values()))
    for texts in found.values():
        random.Random(0).shuffle(texts)
    return found


def measure(kind: str, name: str, texts: list[str], tokenizer: Path, limit: int, rounds: int) -> Iterator[str]:
    """The cells of a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        file = output / "0.jsonl"
        texts, size = write_texts(texts, file, limit)
        files = [file, *(output / f"{i}.jsonl" for i in range(1, math.ceil(AMOUNT / size)))]
        for copy in files[1:]:
            os.link(file, copy)
        if ours(files[:1], tokenizer, output, 1).read_bytes() != baseline(file, tokenizer, output, 1).read_bytes():
            raise SystemExit(f"error: {kind}, {name}: our ids are not SentencePiece's.")
        ways: dict[str, tuple[int, Callable[[], object]]] = {
            "baseline 1": (size, lambda: baseline(file, tokenizer, output, 1)),
            "ours 1": (size * len(files), lambda: ours(files, tokenizer, output, 1)),
            "bare": (size, lambda: bare(texts, tokenizer)),
            "baseline 2": (size, lambda: baseline(file, tokenizer, output, 2)),
            "ours 2": (size * len(files), lambda: ours(files, tokenizer, output, 2)),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, (amount, run) in ways.items():
                started = time.perf_counter()
                run()
                rates[way].append(amount / 1e6 / (time.perf_counter() - started))
    rate = {way: statistics.median(found) for way, found in rates.items()}
    yield from (kind, name, f"{size / 1e6:.1f}")
    yield from (f"{rate[way]:.1f}" for way in ("bare", "baseline 1", "ours 1", "baseline 2", "ours 2"))
    pairs = (("ours 1", "bare"), ("ours 1", "baseline 1"), ("ours 2", "baseline 2"), ("ours 2", "ours 1"))
    yield from (f"{rate[a] / rate[b]:.2f}" for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", nargs="+", required=True, help="NAME=PATH: text of a language")
    parser.add_argument("--kind", nargs="+", default=["bpe", "unigram"])
    parser.add_argument("--vocab-size", type=int, default=65536)
    parser.add_argument("--megabytes", type=float, default=10, help="of each file, at most (default: 10)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = texts_of(options.input)
    columns = ("bare", "base 1", "ours 1", "base 2", "ours 2")
    ratios = ("1/bare", "1/base 1", "2/base 2", "2/1")
    show("kind", "text", "MB", *columns, *(f"ours {ratio}" for ratio in ratios))
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kind:
            tokenizer = Path(folder) / kind
            train(texts.get("mixed", next(iter(texts.values()))), options.vocab_size, tokenizer, kind)
            for name, documents in texts.items():
                limit = int(options.megabytes * 1e6)
                show(*measure(kind, name, documents, tokenizer, limit, options.rounds))


def show(*cells: str) -> None:
    """A row of the table, at once: the whole takes minutes."""
    print(*(f"{cell:>13}" if i > 7 else f"{cell:>9}" for i, cell in enumerate(cells)), flush=True)


if __name__ == "__main__":
    main()
