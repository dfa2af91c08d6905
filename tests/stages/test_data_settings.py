"""Every packing trains, documents apart or not, and does not know how the run is spread."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, words


@pytest.mark.parametrize("mask", ["false", "true"])
@pytest.mark.parametrize("packing", ["concat", "best_fit", "megatron"])
def test_losses_at_two_ranks_are_those_of_one(
    one_rank: Ranks, two_ranks: Ranks, tmp_path: Path, corpus: Corpus, packing: str, mask: str
) -> None:
    settings = {
        "data__packing": packing,
        "data__document_mask": mask,
        "data__train": f"{corpus.train} | {corpus.val}",
        "train__dtype": "fp32",
        "train__steps": "3",
        "evaluation__sample_every": "0",
        "checkpoint__every": "0",
    }
    assert one_rank(pretrain, words(corpus, tmp_path / "one", **settings)) == [0]
    assert two_ranks(pretrain, words(corpus, tmp_path / "two", **settings)) == [0, 0]
    losses = [[entry["loss"] for entry in log(tmp_path / name, "step")] for name in ("one", "two")]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
