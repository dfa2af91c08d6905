"""The same recipe and seed give the same curve, and the samples of a step do not depend on how the run is spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.data.batches import Batch
from megatron_iberis.data.rows import Mixture, Rows
from megatron_iberis.training.engine import Engine, StepResult
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, words


def consumed(overrides: list[str]) -> dict[int, list[int]]:
    """Runs on a rank: pretrains; the sample numbers that went into each of this rank's steps."""
    step_of_engine, read_of_mixture = Engine.step, Mixture.read
    found: dict[int, list[int]] = {}
    given: list[tuple[Rows, range]] = []

    def read(self: Mixture, first: int, count: int) -> Rows:
        given.append((read_of_mixture(self, first, count), range(first, first + count)))
        return given[-1][0]

    def step(self: Engine, number: int, batches: list[Batch], *rest: Any) -> StepResult:
        found[number] = [sample for batch in batches for rows, ids in given if is_of(batch, rows) for sample in ids]
        return step_of_engine(self, number, batches, *rest)

    Mixture.read, Engine.step = read, step  # type: ignore[assignment,method-assign]
    try:
        assert pretrain(overrides) == 0
    finally:
        Mixture.read, Engine.step = read_of_mixture, step_of_engine  # type: ignore[method-assign]
    return found


def is_of(batch: Batch, rows: Rows) -> bool:
    """Whether the batch is made of these rows, whose memory it shares."""
    return batch.tokens.data_ptr() == rows.tokens.ctypes.data


def test_samples_of_a_step_depend_on_seed_and_step_only(
    one_rank: Ranks, two_ranks: Ranks, tmp_path: Path, corpus: Corpus
) -> None:
    spreads = [
        one_rank(consumed, words(corpus, tmp_path / "one")),
        one_rank(consumed, words(corpus, tmp_path / "whole", train__device_batch="8")),
        two_ranks(consumed, words(corpus, tmp_path / "two")),
    ]
    for ranks in spreads:
        steps = [sorted(sample for rank in ranks for sample in rank[step]) for step in range(10)]
        assert steps == [list(range(step * 8, step * 8 + 8)) for step in range(10)]
    pair = two_ranks(consumed, words(corpus, tmp_path / "tensor", parallel__tp="2"))
    assert pair[0] == pair[1]  # tensor-parallel ranks see the same
    assert sorted(pair[0][9]) == list(range(72, 80))


@pytest.mark.parametrize("stage", ["1", "3"])
def test_two_runs_of_one_recipe_give_the_same_curve_bit_for_bit(
    two_ranks: Ranks, tmp_path: Path, corpus: Corpus, stage: str
) -> None:
    curves = []
    for name in ("first", "second"):
        assert two_ranks(pretrain, words(corpus, tmp_path / name, parallel__zero_stage=stage)) == [0, 0]
        steps = [(e["loss"], e["gradient_norm"]) for e in log(tmp_path / name, "step")]
        curves.append((steps, [e["bits_per_byte"] for e in log(tmp_path / name, "validation")]))
    assert curves[0] == curves[1]
    assert len(curves[0][0]) == 10
