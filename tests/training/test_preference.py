"""Preference optimisation is the same at every layout: its start, its references, its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from megatron_iberis.data.batches import Batch, micro_batches
from megatron_iberis.data.plan import BatchPlan
from megatron_iberis.data.preference_rows import PreferenceRows
from megatron_iberis.data.preferences import Answer, Pair
from megatron_iberis.errors import InputError
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.training.engine import StepResult
from megatron_iberis.training.preference import Loss, PreferenceLoss
from megatron_iberis.training.references import ReferenceFile, Table, log_probabilities
from tests.support.ranks import Ranks
from tests.support.small_engines import (
    MODEL,
    ROWS,
    SEQUENCE_LENGTH,
    Layout,
    engine,
    master_weights,
    merged,
    recipe,
    start_weights,
)

ADAMW = {"kind": "adamw", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "clip": 1.0}
LAYOUTS = [
    Layout(stage=1, tp=2),
    Layout(stage=2, tp=2, sequence_parallel=True, rows=4),
    Layout(stage=0, rows=2),
    Layout(stage=2, rows=4),
    Layout(stage=3, rows=2),
    Layout(stage=2, cp=2, rows=4),
]
LOSSES: list[tuple[Loss, float]] = [("sigmoid", 0.1), ("length_normalised", 5.0)]
HASHES = {"template": "t", "model": "w"}


@cache
def pairs() -> tuple[Pair, ...]:
    """Enough for a row more than a step has: the second step is a partial one, with ranks that have nothing."""
    random = np.random.default_rng(3)
    found = []
    for number in range(12):
        prompt, chosen, rejected = random.integers(1, 4), random.integers(1, 7), random.integers(1, 7)

        def answer(said: int, prompt: int = prompt) -> Answer:
            return Answer(random.integers(0, 61, prompt + said).astype(np.int32), prompt, np.arange(said) != 1)

        found.append(Pair(number, f"p.jsonl:{number + 1}", answer(chosen), answer(rejected)))
    return tuple(found)


def rows() -> PreferenceRows:
    return PreferenceRows(pairs(), SEQUENCE_LENGTH, ROWS, seed=1)


@dataclass(frozen=True)
class Trained:
    reference: Table
    results: list[StepResult]


def trained(layout: Layout, objective: PreferenceLoss, steps: int = 2) -> tuple[Trained, dict[str, torch.Tensor]]:
    """Runs on a rank: the reference, then steps over the rows."""
    running, source = engine(recipe(layout, **ADAMW), start_weights()), rows()
    source.reference = log_probabilities(running, source)
    groups = running.groups
    plan = BatchPlan(ROWS, layout.rows, groups.dp_rank, groups.dp_size)
    batches = micro_batches(source, plan, 0, steps)
    results = [
        running.step(step, [next(batches) for _ in range(plan.accumulation)], objective) for step in range(steps)
    ]
    owned = {name: tensor.clone() for name, tensor in master_weights(running).items()}
    running.deepspeed.destroy()
    return Trained(source.reference, results), owned


_alone: dict[PreferenceLoss, Any] = {}


def alone(one_rank: Ranks, objective: PreferenceLoss) -> tuple[Trained, dict[str, torch.Tensor]]:
    """What one process makes of it."""
    if objective not in _alone:
        (_alone[objective],) = one_rank(trained, Layout(rows=4), objective)
    found: tuple[Trained, dict[str, torch.Tensor]] = _alone[objective]
    return found


@cache
def plain_log_probabilities() -> Table:
    """Of each answer alone in a row of its own, by the plain model."""
    model = ReferenceIberis(MODEL)
    model.load_state_dict(start_weights())
    found = np.zeros((len(pairs()), 2))
    with torch.no_grad():
        for n, pair in enumerate(pairs()):
            for side, answer in enumerate((pair.chosen, pair.rejected)):
                ids, targets = torch.from_numpy(answer.ids[:-1].astype(np.int64)), torch.from_numpy(answer.targets)
                logits = model(ids[None])[0]
                found[n, side] = -F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return found


def test_the_pairs_fill_more_rows_than_a_step_has() -> None:
    assert ROWS < len(rows().rows) < 2 * ROWS


@pytest.mark.parametrize("layout", [Layout(), *LAYOUTS], ids=str)
def test_the_first_loss_is_ln_2_and_every_layout_trains_as_one_process(
    one_rank: Ranks, two_ranks: Ranks, layout: Layout
) -> None:
    ranks = one_rank if layout == Layout() else two_ranks
    for loss, beta in LOSSES:
        objective = PreferenceLoss(loss, beta)
        wanted, wanted_weights = alone(one_rank, objective)
        found = ranks(trained, layout, objective)
        for each, _ in found:
            assert each.reference == pytest.approx(plain_log_probabilities(), abs=2e-5)
            assert each.results[0].loss == pytest.approx(math.log(2), abs=1e-5)
            assert each.results[0].figures["margin"] == pytest.approx(0, abs=1e-5)
            for result, other in zip(each.results, wanted.results, strict=True):
                assert result.loss == pytest.approx(other.loss, abs=1e-5)
                assert result.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-3)
                assert result.figures["chosen_log_probability"] == pytest.approx(
                    other.figures["chosen_log_probability"], rel=1e-5
                )
        for name, tensor in merged(found).items():
            change = (wanted_weights[name] - start_weights()[name]).norm()
            assert (tensor - wanted_weights[name]).norm() <= 1e-3 * change, name


def test_the_loss_is_that_of_the_plain_model_and_a_mean_over_pairs(one_rank: Ranks) -> None:
    """Of a model that has moved away from its reference; one that was at it would have ln 2 whatever is divided."""
    reference = plain_log_probabilities() + np.linspace(-3, 3, 2 * len(pairs())).reshape(-1, 2)
    for loss, beta in LOSSES:
        gain = plain_log_probabilities() - reference
        if loss == "length_normalised":
            gain /= np.array([pair.targets for pair in pairs()])
        margins = beta * (gain[:, 0] - gain[:, 1])
        ((result,),) = one_rank(first_step, PreferenceLoss(loss, beta), reference)
        seen = np.array([place.document for sample in range(ROWS) for place in rows().locate(sample)])
        assert result.loss == pytest.approx(np.log1p(np.exp(-margins[seen])).mean(), abs=1e-4)
        assert result.figures["margin"] == pytest.approx(margins[seen].mean(), abs=1e-4)
        assert result.figures["accuracy"] == pytest.approx((margins[seen] > 0).mean())
        lengths = np.array([pair.targets for pair in pairs()])[seen].mean(axis=0)
        assert [result.figures[f"{side}_length"] for side in ("chosen", "rejected")] == pytest.approx(lengths)


def first_step(objective: PreferenceLoss, reference: Table) -> list[StepResult]:
    """Runs on a rank."""
    running, source = engine(recipe(Layout(), **ADAMW), start_weights()), rows()
    source.reference = reference
    result = running.step(0, [Batch.of(source.read(0, ROWS))], objective)
    running.deepspeed.destroy()
    return [result]


def given(path: Path, hashes: dict[str, str], resumed: bool, changed: int | None = None) -> tuple[str, Any]:
    """Runs on a rank: what a run says of its references, and the references. changed: a pair with other tokens."""
    source = rows()
    if changed is not None:
        pair = source.pairs[changed]
        other = replace(pair.chosen, ids=(pair.chosen.ids + 1) % 61)
        pairs_now = [replace(pair, chosen=other) if n == changed else p for n, p in enumerate(source.pairs)]
        source = PreferenceRows(pairs_now, SEQUENCE_LENGTH, ROWS, seed=1)
    running = engine(recipe(Layout(rows=2), **ADAMW), start_weights())
    said: list[str] = []
    try:
        ReferenceFile(path, hashes).give(running, source, resumed, said.append)
    except InputError as error:
        said.append(str(error))
    running.deepspeed.destroy()
    return said[-1], source.reference


def test_references_are_worked_out_once_and_read_again(two_ranks: Ranks, tmp_path: Path) -> None:
    path = tmp_path / "references" / "train.safetensors"
    first = two_ranks(given, path, HASHES, False)
    assert all("worked out" in said for said, _ in first)
    again = two_ranks(given, path, HASHES, True)
    for (said, found), (_, wanted) in zip(again, first, strict=True):
        assert said == f"reference log-probabilities of 12 pairs from {path}"
        assert np.array_equal(found, wanted)


def test_references_of_other_pairs_template_or_model_are_not_taken(one_rank: Ranks, tmp_path: Path) -> None:
    """A run that begins works them out anew; one that is resumed has other weights by then, and is refused."""
    path = tmp_path / "train.safetensors"
    ((_, wanted),) = one_rank(given, path, HASHES, False)
    content = path.read_bytes()
    cases: list[tuple[dict[str, str], int | None, str]] = [
        (HASHES, 4, f"p.jsonl:5 is another pair than the one that {path} has an entry of, and the model"),
        ({**HASHES, "template": "u"}, None, "are of another template, and the model"),
        ({**HASHES, "model": "x"}, None, "are of another model, and the model"),
    ]
    for hashes, changed, complaint in cases:
        ((said, _),) = one_rank(given, path, hashes, True, changed)
        assert complaint in said
        assert "start a new run with another --run.folder." in said
        assert path.read_bytes() == content
        ((said, found),) = one_rank(given, path, hashes, False, changed)
        assert "worked out" in said
        if changed is None:
            assert np.array_equal(found, wanted)
        else:
            assert not np.array_equal(found[changed], wanted[changed])
        path.write_bytes(content)
    path.write_bytes(content[:-8])
    ((said, _),) = one_rank(given, path, HASHES, True)
    assert "is damaged" in said
    path.unlink()
    ((said, _),) = one_rank(given, path, HASHES, True)
    assert "is missing" in said
