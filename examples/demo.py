"""`make demo`: the whole way small. Text -> tokenizer -> token files -> training -> a few words -> Hugging Face.

Every step is one of the project's own commands, shown before it runs. What is already there is not made again, so a
second `make demo` resumes where the first one stopped. Other text than before, or the same files changed, has a
folder of its own.

    python -m examples.demo [a.jsonl.zst b.parquet ...]
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from megatron_iberis.checkpoint import files
from megatron_iberis.command import run
from megatron_iberis.config import load_recipe
from megatron_iberis.errors import InputError
from megatron_iberis.launcher import environment
from megatron_iberis.run_folder import RunFolder
from megatron_iberis.text.reading.inputs import InputFile, find_inputs
from megatron_iberis.text.reading.records import Tally, read_documents

ROOT = Path("demo")
PROMPTS = ("The old clockmaker", "むかしむかし、")
NEW_TOKENS = 48
FEW = 200
"""Documents: of fewer, a share set aside for validation may be none, or most of the text."""
PIECE = 4000
"""Characters of the pieces that a few long documents (a book, say) are cut into, at the ends of lines."""


def main() -> int:
    """Runs the demo on the given text files, or on the sample text; returns the exit code."""
    given = sys.argv[1:]
    files = find_inputs(given) if given else []
    if any(file.is_stdin for file in files):
        raise InputError("the text is read several times: give files or folders, not -.")
    folder = ROOT / (f"data-{_fingerprint(files)}" if files else "sample")
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = load_recipe("demo").model.vocab_size
    workers = str(os.cpu_count() or 1)
    try:
        inputs = _whole_or_in_pieces(given, files, folder) if files else [_sample_text(folder)]
        if not (folder / "tokenizer").is_dir():
            tool = ["data_tools/train_tokenizer.py", "--vocab-size", str(vocab_size)]
            _python(*tool, "--input", *inputs, "--output", str(folder / "tokenizer"))
        if not (folder / "corpus_val_text_document.idx").is_file():
            tool = ["data_tools/preprocess.py", "--workers", workers, "--val-fraction", "0.05"]
            split = [] if given else ["--split-key", "source"]
            prefix = ["--output-prefix", str(folder / "corpus")]
            _python(*tool, *split, "--input", *inputs, "--tokenizer", str(folder / "tokenizer"), *prefix)
        _train(folder)
        exported = _export(folder)
    except subprocess.CalledProcessError as error:
        return error.returncode
    _tell(folder, exported)
    return 0


def _fingerprint(files: Sequence[InputFile]) -> str:
    """Another one for other files, and for files that were changed: what was made of the old ones is not theirs."""
    versions = [(str(file.path.resolve()), file.size, file.path.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:8]


def _whole_or_in_pieces(given: list[str], files: list[InputFile], folder: Path) -> list[str]:
    """The input as it was given, or, of a few documents, a file of their pieces, so that some can be set aside."""
    documents = [document.text for document in islice(read_documents(files, "text", Tally()), FEW)]
    if len(documents) == FEW:
        return given
    pieces = folder / "corpus.jsonl"
    if not pieces.is_file():
        print(f"{len(documents)} documents are cut into pieces of {PIECE:,} characters, to set some aside: {pieces}")
        lines = (json.dumps({"text": piece}, ensure_ascii=False) for text in documents for piece in pieces_of(text))
        write_whole(pieces, "".join(f"{line}\n" for line in lines))
    return [str(pieces)]


def pieces_of(text: str) -> Iterator[str]:
    """The text in pieces that end with a line and have about PIECE characters; longer ones where a line is."""
    piece = ""
    for line in text.splitlines(keepends=True):
        piece += line
        if len(piece) >= PIECE:
            yield piece
            piece = ""
    if piece.strip():
        yield piece


def write_whole(path: Path, text: str) -> None:
    """Writes the file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _sample_text(folder: Path) -> str:
    text = folder / "corpus.jsonl"
    if not text.is_file():
        _python("-m", "examples.sample", "--output", str(text))
    return str(text)


def _train(folder: Path) -> None:
    words = ["bash", "examples/demo.sh", "--run.resume"]
    for key, path in (
        ("data.train", folder / "corpus_text_document"),
        ("data.val", folder / "corpus_val_text_document"),
        ("data.tokenizer", folder / "tokenizer"),
        ("run.folder", folder / "run"),
    ):
        words += [f"--{key}", str(path)]
    _run([*words, *_dtype_words()])


def _export(folder: Path) -> Path:
    """The model as a folder for transformers, and what it says there."""
    run = RunFolder(folder / "run")
    newest, _ = files.candidates(run.checkpoints)
    exported = folder / f"hugging-face-{newest[0].name}"
    if not exported.is_dir():
        _run(["iberis", "convert", "to-hf", "--input", str(run.path), "--output", str(exported)])
    _python("examples/exported.py", str(exported), *PROMPTS)
    return exported


def _dtype_words() -> list[str]:
    """fp32 instead of the recipe's bf16 where a CPU is slow in that."""
    import torch

    from megatron_iberis.hardware.measure import faster_dtype

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if faster_dtype(device) == "bf16":
        return []
    print("\nThis CPU multiplies more quickly in fp32 than in bf16, so that is trained in.")
    return ["--train.dtype", "fp32"]


def _python(*words: str) -> None:
    _run(["python", *words])


def _run(words: list[str]) -> None:
    """Shows a command and runs it with this Python and its scripts; CalledProcessError when it fails."""
    print(f"\n$ {shlex.join(words)}", flush=True)
    command = [sys.executable if words[0] == "python" else words[0], *words[1:]]
    process = subprocess.Popen(command, env=environment())
    try:
        code = process.wait()
    except KeyboardInterrupt:  # which the command has got, too
        process.wait()
        raise
    if code:
        raise subprocess.CalledProcessError(code, command)


def _tell(folder: Path, exported: Path) -> None:
    """The last block: how good the model is, what it says, where everything lies, what to run next."""
    from megatron_iberis.data.token_files.reader import TokenFile
    from megatron_iberis.evaluation.unigram import unigram_loss
    from megatron_iberis.inference.generation import ModelGenerator
    from megatron_iberis.inference.load import load_model
    from megatron_iberis.inference.sampling import Sampling

    run_folder = RunFolder(folder / "run")
    model = load_model(run_folder.path)
    train, val = (TokenFile(folder / f"corpus{split}_text_document") for split in ("", "_val"))
    baseline = unigram_loss(train, val, model.tokenizer.token_bytes())
    reached = _last_validation(run_folder.log)["bits_per_byte"]
    generator = ModelGenerator(model)
    print("\n--- what the model says ---")
    for prompt in PROMPTS:
        for name, sampling in (("greedy", Sampling(temperature=0)), ("sampled", Sampling(0.8, top_k=50, seed=0))):
            text = generator.complete(prompt, NEW_TOKENS, sampling).replace("\n", " ")
            print(f"{name:>8}: {prompt}|{text}")
    print("\n--- how good it is, on text it has not seen ---")
    print(f"   model: {reached:.4f} bits per byte after {model.step} steps")
    print(f" unigram: {baseline.bits_per_byte:.4f} bits per byte, knowing only how frequent each token is")
    print("\n--- where everything lies ---")
    for what, path in (
        ("tokenizer", folder / "tokenizer"),
        ("token files", folder / "corpus_text_document.bin"),
        ("checkpoints", run_folder.checkpoints),
        ("hugging face", exported),
        ("curves", run_folder.tensorboard),
        ("log", run_folder.log),
    ):
        print(f"{what:>12}: {path}")
    print("\n--- what to run next ---")
    print("  . .venv/bin/activate")
    print(f"  tensorboard --logdir {run_folder.tensorboard}")
    print(f"  iberis chat --checkpoint {run_folder.path}")
    print("  deepspeed --num_gpus 2 examples/demo.sh --parallel.tp 2 --run.folder demo/two " + _data_words(folder))
    print("  make demo DATA='your.jsonl more.parquet'")


def _data_words(folder: Path) -> str:
    prefix = folder / "corpus"
    return (
        f"--data.train {prefix}_text_document --data.val {prefix}_val_text_document "
        f"--data.tokenizer {folder / 'tokenizer'}"
    )


def _last_validation(log: Path) -> dict[str, Any]:
    events = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    found: dict[str, Any] = [event for event in events if event["event"] == "validation"][-1]
    return found


if __name__ == "__main__":
    raise SystemExit(run(main, "the same command resumes from here."))
