"""Bits per byte of a language's texts are the reference's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from megatron_iberis.errors import InputError
from megatron_iberis.evaluation.asking import Asker
from megatron_iberis.evaluation.benchmark import measure
from megatron_iberis.evaluation.texts import TextRows
from megatron_iberis.inference.decoder import Decoder
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.tokenizer import Tokenizer
from tests.conftest import Corpus

TEXTS = ["朝の港では、漁師たちが網をたたみながら天気の話をしていた。" * 3, "She opened the notebook.", "波"]


def test_every_byte_of_a_text_counts_once(
    tmp_path: Path, tokenizer: Tokenizer, decoder: Decoder, reference: ReferenceIberis
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    rows = TextRows("ja", str(path), tokenizer, 20)
    items = [rows.ask(i) for i in range(len(rows))]
    marks = [rows.mark(i, replies) for i, replies in enumerate(Asker(decoder, tokenizer)(items))]
    found = measure(rows, marks)
    assert sum(mark.bytes for mark in marks) == sum(len(text.encode()) for text in TEXTS)
    nats = 0.0
    for text in TEXTS:
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        for start in range(0, len(ids) - 1, 20):
            part = torch.tensor([ids[start : start + 21]])
            with torch.no_grad():
                likelihoods = reference(part)[0][:-1].log_softmax(-1)
            nats -= likelihoods.gather(1, part[0, 1:, None]).sum().item()
    assert found.bits_per_byte == pytest.approx(
        nats / math.log(2) / sum(len(text.encode()) for text in TEXTS), abs=1e-5
    )
    assert found.score is None
    assert len(TextRows("ja", str(path), tokenizer, 20, limit=2)) == 2


def test_a_token_file_is_read_row_by_row(corpus: Corpus) -> None:
    own = Tokenizer.load(corpus.tokenizer)
    rows = TextRows("en", corpus.val, own, 32)
    joined = [i for n in range(len(rows)) for i in rows.ask(n)[0].ids[1:]]
    from megatron_iberis.data.token_files.reader import TokenFile

    assert joined == TokenFile(corpus.val).tokens(1, len(joined)).tolist()


def test_another_tokenizers_file_is_refused(corpus: Corpus, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="made with another tokenizer than the checkpoint's"):
        TextRows("en", corpus.val, tokenizer, 32)


def test_a_file_without_text_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("")
    with pytest.raises(InputError):
        TextRows("en", str(path), tokenizer, 32)
