"""`make demo`: the whole way small, from text to a model that answers, its report, and a folder for transformers.

Every stage is one of the project's own commands, shown before it runs (examples/speedrun). What is done is not done
again, so a second `make demo` resumes where the first one stopped. With text of yours a base model is trained on it;
other text than before, or the same files changed, has a folder of its own.

    python -m examples.demo [a.jsonl.zst b.parquet ...]
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from examples.speedrun.plan import load_plan
from examples.speedrun.running import Speedrun
from megatron_iberis.command import run
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.errors import InputError
from megatron_iberis.run_folder import RunFolder
from megatron_iberis.storage.atomic import write_atomic
from megatron_iberis.text.reading.inputs import InputFile, find_inputs
from megatron_iberis.text.reading.records import Tally, read_documents
from megatron_iberis.tokenizer import Tokenizer

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
    folder, text = ROOT / "sample", ""
    if files:
        folder = ROOT / f"data-{_fingerprint(files)}"
        folder.mkdir(parents=True, exist_ok=True)
        text = shlex.join(_whole_or_in_pieces(given, files, folder))
    plan = load_plan("text", str(folder), {"text": text}) if files else load_plan("demo", str(folder))
    code = Speedrun(plan, plan.stages).run()
    if code == 0:
        _tell(folder, ("corpus",) if files else ("en", "ja"))
        print("", *plan.ends, sep="\n")
    return code


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
        write_atomic(pieces, "".join(f"{line}\n" for line in lines).encode())
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


def _tell(folder: Path, corpora: Sequence[str]) -> None:
    """How good the base model is, what it says, where everything lies. corpora: the token files' names."""
    from megatron_iberis.inference.generation import ModelGenerator
    from megatron_iberis.inference.load import load_model
    from megatron_iberis.inference.sampling import Sampling

    base = RunFolder(folder / "run")
    model = load_model(base.path)
    generator = ModelGenerator(model)
    print("\n--- what the base model says ---")
    for prompt in PROMPTS:
        for name, sampling in (("greedy", Sampling(temperature=0)), ("sampled", Sampling(0.8, top_k=50, seed=0))):
            text = generator.complete(prompt, NEW_TOKENS, sampling).replace("\n", " ")
            print(f"{name:>8}: {prompt}|{text}")
    print("\n--- how good it is, on text it has not seen ---")
    print(f"   model: {_last_validation(base.log)['bits_per_byte']:.4f} bits per byte after {model.step} steps")
    print(
        f" unigram: {_unigram(folder, corpora, model.tokenizer):.4f} bits per byte, knowing how frequent tokens are"
    )
    print("\n--- where everything lies ---")
    for what, path in (
        ("tokenizer", folder / "tokenizer"),
        ("token files", folder / f"{corpora[0]}_text_document.bin"),
        ("checkpoints", base.checkpoints),
        ("report", folder / "report" / "report.html"),
        ("hugging face", folder / "hugging-face"),
        ("curves", base.tensorboard),
        ("log", base.log),
    ):
        print(f"{what:>12}: {path}")


def _unigram(folder: Path, corpora: Sequence[str], tokenizer: Tokenizer) -> float:
    """Bits per byte of all held-out text by frequencies alone, each corpus by its own."""
    from megatron_iberis.evaluation.bits_per_byte import TextLoss
    from megatron_iberis.evaluation.unigram import unigram_loss

    whole = TextLoss(0.0, 0, 0)
    for name in corpora:
        train, val = (TokenFile(folder / f"{name}{split}_text_document") for split in ("", "_val"))
        whole += unigram_loss(train, val, tokenizer.token_bytes())
    return whole.bits_per_byte


def _last_validation(log: Path) -> dict[str, Any]:
    events = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    found: dict[str, Any] = [event for event in events if event["event"] == "validation"][-1]
    return found


if __name__ == "__main__":
    raise SystemExit(run(main, "the same command resumes from here."))
