"""Fixtures that several folders share: ranks that live for the session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # kernels of a GPU are tested on CPUs; Triton looks when anything imports it first
    os.environ.setdefault("TRITON_INTERPRET", "1")

from megatron_iberis.text.config import PreprocessConfig
from megatron_iberis.text.preprocess import preprocess
from megatron_iberis.text.reading.inputs import find_inputs
from megatron_iberis.text.reading.records import Tally, read_documents
from megatron_iberis.tokenizer import train
from tests.support.ranks import Ranks


def pytest_configure() -> None:
    """Signals that this process ignores, since nohup or a script's & started it, would be ignored by its children."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # ignored here still


@pytest.fixture(scope="session")
def one_rank() -> Iterator[Ranks]:
    ranks = Ranks(1)
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Ranks]:
    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def four_ranks() -> Iterator[Ranks]:
    ranks = Ranks(4)
    yield ranks
    ranks.close()


@dataclass(frozen=True)
class Corpus:
    """A small tokenizer and the token files that it made of the sample text."""

    tokenizer: Path
    train: str
    val: str


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    texts = sorted(str(p) for p in (Path(__file__).parents[1] / "examples" / "sample").glob("*.jsonl"))
    documents = (document.text for document in read_documents(find_inputs(texts), "text", Tally()))
    train(documents, 600, folder / "tokenizer")
    preprocess(
        PreprocessConfig(
            texts, str(folder / "tokenizer"), str(folder / "corpus"), val_fraction=0.2, split_key="source"
        ),
        lambda *_: None,
    )
    prefix = folder / "corpus"
    return Corpus(folder / "tokenizer", f"{prefix}_text_document", f"{prefix}_val_text_document")
