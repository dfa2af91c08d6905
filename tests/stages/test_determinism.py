"""The same recipe and seed give the same curve, and the samples of a step do not depend on how the run is spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from megatron_iberis.data.batches import Batch, SampleSource
from megatron_iberis.training.engine import Engine, StepResult
from tests.conftest import Corpus
from tests.support.ranks import Ranks
from tests.support.runs import log, pretrain, words


@dataclass
class Recording:
    """A source that remembers which sample numbers each of its batches holds."""

    source: SampleSource
    given: list[tuple[Batch, list[int]]] = field(default_factory=list)

    def read(self, first: int, count: int) -> Batch:
        batch = self.source.read(first, count)
        self.given.append((batch, list(range(first, first + count))))
        return batch

    def samples(self, batches: Iterable[Batch]) -> list[int]:
        return [sample for wanted in batches for batch, ids in self.given if batch is wanted for sample in ids]


def consumed(overrides: list[str]) -> dict[int, list[int]]:
    """Runs on a rank: pretrains; the sample numbers that went into each of this rank's steps."""
    from megatron_iberis.stages import pretrain as stage

    step_of_engine, make_source = Engine.step, stage._training_source
    found: dict[int, list[int]] = {}
    recordings: list[Recording] = []

    def source(*arguments: Any) -> Recording:
        recordings.append(Recording(make_source(*arguments)))
        return recordings[-1]

    def step(self: Engine, number: int, batches: list[Batch], *rest: Any) -> StepResult:
        found[number] = recordings[-1].samples(batches)
        return step_of_engine(self, number, batches, *rest)

    stage._training_source, Engine.step = source, step  # type: ignore[assignment,method-assign]
    try:
        assert pretrain(overrides) == 0
    finally:
        stage._training_source, Engine.step = make_source, step_of_engine  # type: ignore[method-assign]
    return found


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
