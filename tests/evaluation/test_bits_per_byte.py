"""Bits per byte: the model's nats over the true UTF-8 bytes, each sample once, however the work is shared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from megatron_iberis.config import ModelConfig
from megatron_iberis.data.order.concatenated import SampleOrder
from megatron_iberis.data.rows import ConcatSource
from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.evaluation.bits_per_byte import TextLoss, evaluate
from megatron_iberis.evaluation.unigram import unigram_loss
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import Tokenizer
from tests.conftest import Corpus
from tests.support.comparison import randomise
from tests.support.ranks import Ranks, groups_of
from tests.support.token_files import TokenFileWriter

TEXTS = [
    "The moon was bright, and nobody slept.",
    "月が明るくて、誰も眠らなかった。\n「本当に？」と彼女は聞いた。",
    "naïve façade, 3.14159 🦊🗾 ﷽ \t end",  # most of it in byte pieces
    "",
    "駅まで歩いて10分です。It takes ten minutes to walk to the station.",
]
T = 16
MODEL = ModelConfig(depth=2, width=32, heads=2, vocab_size=601, sequence_length=T).resolved()


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """A token file of TEXTS, filled up with bos to whole samples: then each token is a target once."""
    tokenizer = Tokenizer.load(corpus.tokenizer)
    path = tmp_path_factory.mktemp("texts") / "f"
    documents = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in TEXTS]
    documents.append([tokenizer.bos_id] * (-sum(map(len, documents)) % T or T))
    with TokenFileWriter(path, tokenizer.vocab_size) as writer:
        for document in documents:
            writer.add_document(document)
        writer.finalize({})
    return path


def reference() -> ReferenceIberis:
    model = ReferenceIberis(MODEL)
    randomise(model, 3)
    return model


def source(prefix: Path) -> ConcatSource:
    file = TokenFile(prefix)
    return ConcatSource(file, SampleOrder(file.num_tokens, T, 0, shuffle=False), MODEL.vocab_size)


def evaluated(prefix: Path, tokenizer: Path, tensor: int, samples: int, micro_batches: list[int]) -> list[TextLoss]:
    """Runs on a rank: the evaluation, with each size of micro-batch."""
    groups = groups_of(tensor)
    model = build_model(MODEL, groups)
    fill_parameters(shards(model), reference().state_dict())
    lengths = torch.zeros(MODEL.vocab_size, dtype=torch.int64)
    known = Tokenizer.load(tokenizer).token_bytes()
    lengths[: len(known)] = torch.from_numpy(known).long()
    data, cpu = source(prefix), torch.device("cpu")
    return [evaluate(model, data, samples, size, lengths, groups, cpu) for size in micro_batches]


def by_hand(prefix: Path, tokenizer: Tokenizer, samples: int) -> tuple[float, int, int]:
    """(nats, tokens, bytes) from the plain model, one sample at a time; bytes from the decoded text."""
    nats, tokens, size = 0.0, 0, 0
    file = TokenFile(prefix)
    ids = file.tokens(0, file.num_tokens).astype(np.int64)
    stream = torch.from_numpy(np.append(ids, ids[:1]))
    for start in range(0, samples * T, T):
        row, targets = stream[start : start + T], stream[start + 1 : start + T + 1]
        with torch.no_grad():
            losses = F.cross_entropy(reference()(row.unsqueeze(0))[0].double(), targets, reduction="none")
        for target, loss in zip(targets.tolist(), losses.tolist(), strict=True):
            if target != tokenizer.bos_id:
                nats, tokens, size = nats + loss, tokens + 1, size + int(tokenizer.token_bytes()[target])
    return nats, tokens, size


def check(found: TextLoss, wanted: tuple[float, int, int]) -> None:
    nats, tokens, size = wanted
    assert (found.tokens, found.bytes) == (tokens, size)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_equals_a_computation_by_hand(one_rank: Ranks, corpus: Corpus, prefix: Path) -> None:
    tokenizer = Tokenizer.load(corpus.tokenizer)
    samples = TokenFile(prefix).num_tokens // T
    wanted = by_hand(prefix, tokenizer, samples)
    assert wanted[1:] == (sum(len(tokenizer.encode(t)) for t in TEXTS), sum(len(t.encode()) for t in TEXTS))
    check(one_rank(evaluated, prefix, corpus.tokenizer, 1, samples, [1])[0][0], wanted)


@pytest.mark.parametrize("samples", [1, 3, 7])
def test_does_not_depend_on_ranks_or_micro_batches(
    one_rank: Ranks, two_ranks: Ranks, corpus: Corpus, prefix: Path, samples: int
) -> None:
    assert TokenFile(prefix).num_tokens // T > 7
    wanted = by_hand(prefix, Tokenizer.load(corpus.tokenizer), samples)
    sizes = [1, 2, 3, 4, 10]
    arguments = (prefix, corpus.tokenizer)
    found = [one_rank(evaluated, *arguments, 1, samples, sizes)[0]]
    for tensor in (1, 2):
        found += two_ranks(evaluated, *arguments, tensor, samples, sizes)
    for rank in found:
        for loss in rank:
            check(loss, wanted)


def test_unigram_baseline_by_hand(tmp_path: Path) -> None:
    for name, tokens in {"train": [1, 1, 2, 0], "val": [1, 2, 2, 3, 0]}.items():
        with TokenFileWriter(tmp_path / name, 4) as writer:
            writer.add_document(tokens)
            writer.finalize({})
    lengths = np.array([0, 1, 2, 3])  # token 0 is a special one
    found = unigram_loss(TokenFile(tmp_path / "train"), TokenFile(tmp_path / "val"), lengths)
    # Counts 1 2 1 0 and one more each: probabilities 2/8 3/8 2/8 1/8.
    assert found.nats == pytest.approx(-(math.log(3 / 8) + 2 * math.log(2 / 8) + math.log(1 / 8)))
    assert (found.tokens, found.bytes) == (4, 1 + 2 * 2 + 3)
    assert found.nats_per_token == pytest.approx(found.nats / 4)
    better = replace(found, nats=found.nats / 2)
    assert better.bits_per_byte == pytest.approx(found.bits_per_byte / 2)
