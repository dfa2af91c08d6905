"""Mid-training and finetuning: the layout is never seen in what is learned, and nothing is done in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Corpus
from tests.support.finetuning import conversations, finetune, words, write
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain
from tests.support.runs import words as pretraining


@pytest.fixture(scope="module")
def base(one_rank: Ranks, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model of a few steps."""
    folder = tmp_path_factory.mktemp("base") / "run"
    short = {"train__steps": "4", "train__dtype": "fp32", "evaluation__every": "0", "evaluation__sample_every": "0"}
    assert one_rank(pretrain, pretraining(corpus, folder, **short)) == [0]
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("conversations") / "all.jsonl", conversations(60))


def test_smoke(one_rank: Ranks, corpus: Corpus, base: Path, data: Path, tmp_path: Path) -> None:
    import time
    t=time.time()
    assert one_rank(finetune, words(corpus, tmp_path / "run", base, data, tasks__val=str(data), evaluation__sample_every="3")) == [0]
    print(time.time()-t)
    print((tmp_path / "run" / "log.jsonl").read_text())
    assert 0
