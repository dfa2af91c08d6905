"""`make demo`: the whole way small. Text -> tokenizer -> token files -> training -> bits per byte -> a few words.

Every step is one of the project's own commands, shown before it runs. What is already there is not made again, so a
second `make demo` goes on where the first one stopped.

    python -m examples.demo [a.jsonl.zst b.parquet ...]
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from megatron_iberis.config import load_recipe

ROOT = Path("demo")
PROMPTS = ("The old clockmaker", "むかしむかし、")
NEW_TOKENS = 48


def main() -> int:
    """Runs the demo on the given text files, or on the sample text; returns the exit code."""
    given = sys.argv[1:]
    folder = ROOT / (f"data-{hashlib.sha256(' '.join(given).encode()).hexdigest()[:8]}" if given else "sample")
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = load_recipe("demo").model.vocab_size
    workers = str(os.cpu_count() or 1)
    try:
        inputs = given or [_sample_text(folder)]
        if not (folder / "tokenizer").is_dir():
            tool = ["data_tools/train_tokenizer.py", "--vocab-size", str(vocab_size)]
            _python(*tool, "--input", *inputs, "--output", str(folder / "tokenizer"))
        if not (folder / "corpus_val_text_document.idx").is_file():
            tool = ["data_tools/preprocess.py", "--workers", workers, "--val-fraction", "0.05"]
            split = [] if given else ["--split-key", "source"]
            prefix = ["--output-prefix", str(folder / "corpus")]
            _python(*tool, *split, "--input", *inputs, "--tokenizer", str(folder / "tokenizer"), *prefix)
        _train(folder)
    except subprocess.CalledProcessError as error:
        return error.returncode
    _tell(folder)
    return 0


def _sample_text(folder: Path) -> str:
    text = folder / "corpus.jsonl"
    if not text.is_file():
        _python("-m", "examples.sample", "--output", str(text))
    return str(text)


def _train(folder: Path) -> None:
    words = ["deepspeed", "--log_level", "error", "examples/demo.sh", "--run.resume"]
    for key, path in (
        ("data.train", folder / "corpus_text_document"),
        ("data.val", folder / "corpus_val_text_document"),
        ("data.tokenizer", folder / "tokenizer"),
        ("run.folder", folder / "run"),
    ):
        words += [f"--{key}", str(path)]
    _run(words)


def _python(*words: str) -> None:
    _run(["python", *words])


def _run(words: list[str]) -> None:
    """Shows a command and runs it with this Python and its scripts; CalledProcessError when it fails."""
    print(f"\n$ {shlex.join(words)}", flush=True)
    scripts = Path(sys.executable).parent
    program = sys.executable if words[0] == "python" else str(scripts / words[0])
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
    if not shutil.which("nvidia-smi"):
        environment.setdefault("DS_ACCELERATOR", "cpu")  # else the launcher warns that it found no GPU
    subprocess.run([program, *words[1:]], check=True, env=environment)


def _tell(folder: Path) -> None:
    """The last block: how good the model is, what it says, where everything lies, what to run next."""
    from megatron_iberis.data.token_files.reader import TokenFile
    from megatron_iberis.evaluation.unigram import unigram_loss
    from megatron_iberis.inference.load import load_model

    run = folder / "run"
    model = load_model(run)
    train, val = (TokenFile(folder / f"corpus{split}_text_document") for split in ("", "_val"))
    baseline = unigram_loss(train, val, model.tokenizer.token_bytes())
    reached = _last_validation(run / "log.jsonl")["bits_per_byte"]
    print("\n--- what the model says ---")
    for prompt in PROMPTS:
        for name, temperature in (("greedy", 0.0), ("sampled", 0.8)):
            text = model.complete(prompt, NEW_TOKENS, temperature).replace("\n", " ")
            print(f"{name:>8}: {prompt}|{text}")
    print("\n--- how good it is, on text it has not seen ---")
    print(f"   model: {reached:.4f} bits per byte after {model.step} steps")
    print(f" unigram: {baseline.bits_per_byte:.4f} bits per byte, knowing only how frequent each token is")
    print("\n--- where everything lies ---")
    for what, path in (
        ("tokenizer", folder / "tokenizer"),
        ("token files", folder / "corpus_text_document.bin"),
        ("checkpoints", run / "checkpoints"),
        ("curves", run / "tensorboard"),
        ("log", run / "log.jsonl"),
    ):
        print(f"{what:>12}: {path}")
    print("\n--- what to run next ---")
    print("  . .venv/bin/activate")
    print(f"  tensorboard --logdir {run / 'tensorboard'}")
    print(f"  iberis generate --checkpoint {run} --prompt 'The moon'")
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
    raise SystemExit(main())
