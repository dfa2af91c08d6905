"""The engine trains towards any objective: weighted sums and whole rows' likelihoods alike, at every layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from megatron_iberis.data.batches import Batch
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.training.engine import StepResult
from megatron_iberis.training.objectives import Figures, NextToken, Objective
from tests.support.ranks import Ranks
from tests.support.small_engines import (
    MODEL,
    ROWS,
    SEQUENCE_LENGTH,
    Layout,
    engine,
    master_weights,
    merged,
    own_micro_batches,
    recipe,
    start_weights,
)

LAYOUTS = [
    Layout(stage=0, rows=4),
    Layout(stage=1, rows=2),
    Layout(stage=1, tp=2),
    Layout(stage=3, tp=2, sequence_parallel=True, rows=4),
    Layout(stage=2, cp=2, rows=4),
    Layout(stage=3, cp=2),
]
BETA = 0.1


@dataclass(frozen=True)
class Preference:
    """Of each two rows the first is to be the likelier one: a loss that needs both rows' likelihoods whole."""

    def count(self, batch: Batch) -> float:
        return len(batch.tokens) / 2

    def __call__(self, model: Callable[..., torch.Tensor], batch: Batch) -> tuple[torch.Tensor, Figures]:
        rows = model(batch.tokens, batch.targets, batch.documents, per_token=True).sum(dim=1)
        margins = BETA * (rows[0::2] - rows[1::2])
        return -F.logsigmoid(margins).sum(), {"margin": margins.sum(), "accuracy": float((margins > 0).sum())}


@cache
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, targets (a fifth of them ignored) and weights of a step, each [ROWS, T]; a row of weights is 0."""
    generator = torch.Generator().manual_seed(5)
    stream = torch.randint(MODEL.vocab_size, (ROWS, SEQUENCE_LENGTH + 1), generator=generator)
    targets = stream[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < 0.2] = -1
    weights = 3 * torch.rand(targets.shape, generator=generator)
    weights[0] = 0.0
    return stream[:, :-1].contiguous(), targets, weights


def trained(
    layout: Layout, objective: Objective, weights: torch.Tensor | None, count: int = 2
) -> tuple[list[StepResult], dict[str, torch.Tensor]]:
    """Runs on a rank: steps on the same rows; what each said, and the weights that this rank owns then."""
    tokens, targets, _ = data()
    running = engine(recipe(layout, clip=1.0), start_weights())
    batches = own_micro_batches(running, tokens, targets)
    if weights is not None:
        shares = own_micro_batches(running, tokens, weights)
        batches = [replace(batch, weights=share.targets) for batch, share in zip(batches, shares, strict=True)]
    results = [running.step(step, batches, objective) for step in range(count)]
    owned = {name: tensor.clone() for name, tensor in master_weights(running).items()}
    running.deepspeed.destroy()
    return results, owned


def reference_gradient_norm(loss_of: Callable[[torch.Tensor], torch.Tensor]) -> tuple[float, float]:
    """A loss of the targets' log likelihoods [ROWS, T], and its gradient's norm, from the plain model."""
    reference = ReferenceIberis(MODEL)
    reference.load_state_dict(start_weights())
    tokens, targets, _ = data()
    logits = reference(tokens).transpose(1, 2)
    loss = loss_of(-F.cross_entropy(logits, targets, ignore_index=-1, reduction="none"))
    loss.backward()
    norms = torch.stack([p.grad.norm() for p in reference.parameters()])  # type: ignore[union-attr]
    return loss.item(), norms.norm().item()


def assert_trains_alike(
    one_rank: Ranks, two_ranks: Ranks, layout: Layout, objective: Objective, weights: torch.Tensor | None
) -> list[StepResult]:
    """The layout's steps are those of one process; returns what rank 0 said."""
    alone = one_rank(trained, Layout(), objective, weights)
    found = two_ranks(trained, layout, objective, weights)
    for results, _ in found:
        for result, wanted in zip(results, alone[0][0], strict=True):
            assert result.loss == pytest.approx(wanted.loss, rel=1e-5)
            assert result.gradient_norm == pytest.approx(wanted.gradient_norm, rel=1e-4)
            assert result.figures == pytest.approx(wanted.figures, rel=1e-4)
    start, together, wanted_weights = start_weights(), merged(found), merged(alone)
    for name, tensor in wanted_weights.items():
        assert (together[name] - tensor).norm() <= 1e-4 * (tensor - start[name]).norm(), name
    first: list[StepResult] = found[0][0]
    return first


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_weighted_steps_are_the_weighted_mean_at_every_layout(
    one_rank: Ranks, two_ranks: Ranks, layout: Layout
) -> None:
    _, targets, weights = data()
    counted = (weights * (targets >= 0)).sum()
    loss, norm = reference_gradient_norm(lambda likelihoods: -(likelihoods * weights).sum() / counted)
    first, _ = assert_trains_alike(one_rank, two_ranks, layout, NextToken(), weights)
    assert first.loss == pytest.approx(loss, rel=1e-5)
    assert first.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert first.figures == {}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_preference_between_whole_rows_trains_at_every_layout(
    one_rank: Ranks, two_ranks: Ranks, layout: Layout
) -> None:
    margins = torch.empty(0)

    def wanted(likelihoods: torch.Tensor) -> torch.Tensor:
        nonlocal margins
        margins = BETA * (likelihoods.sum(1)[0::2] - likelihoods.sum(1)[1::2])
        return -F.logsigmoid(margins).mean()

    loss, norm = reference_gradient_norm(wanted)
    first, second = assert_trains_alike(one_rank, two_ranks, layout, Preference(), None)
    assert first.loss == pytest.approx(loss, rel=1e-5)
    assert first.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert first.figures == {
        "margin": pytest.approx(margins.mean().item(), rel=1e-4),
        "accuracy": (margins > 0).double().mean().item(),
    }
    assert second.figures["margin"] > first.figures["margin"]


@pytest.mark.parametrize("layout", [Layout(), Layout(rows=2)], ids=str)
def test_weights_of_one_change_no_bit_of_a_step(one_rank: Ranks, layout: Layout) -> None:
    ((plain, weights),) = one_rank(trained, layout, NextToken(), None)
    ((ones, same_weights),) = one_rank(trained, layout, NextToken(), torch.ones(ROWS, SEQUENCE_LENGTH))
    assert ones == plain
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)


def test_a_weight_of_zero_is_as_an_ignored_target(one_rank: Ranks) -> None:
    mask = (torch.arange(SEQUENCE_LENGTH) % 3 > 0).float().expand(ROWS, -1).contiguous()
    ((found, _),) = one_rank(trained, Layout(), NextToken(), mask)
    _, targets, _ = data()
    kept = (targets >= 0) & (mask > 0)
    loss, norm = reference_gradient_norm(lambda likelihoods: -likelihoods[kept].mean())
    assert found[0].loss == pytest.approx(loss, rel=1e-5)
    assert found[0].gradient_norm == pytest.approx(norm, rel=1e-4)


def test_a_step_in_which_nothing_counts_changes_nothing(one_rank: Ranks) -> None:
    """Neither at the start, nor later, when Muon's momentum alone would make a step of full size."""
    ((found, weights),) = one_rank(trained, Layout(), NextToken(), torch.zeros(ROWS, SEQUENCE_LENGTH), 1)
    assert (found[0].loss, found[0].gradient_norm, found[0].skipped) == (0.0, 0.0, False)
    assert all(torch.equal(weights[name], tensor) for name, tensor in start_weights().items())
    before, after = one_rank(with_nothing_after_a_step, Layout())[0]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert any(not torch.equal(tensor, start_weights()[name]) for name, tensor in before.items())


def with_nothing_after_a_step(layout: Layout) -> list[dict[str, torch.Tensor]]:
    """Runs on a rank: the weights after a step, and after another one without targets."""
    tokens, targets, _ = data()
    running, found = engine(recipe(layout), start_weights()), []
    for step, learned in enumerate((targets, torch.full_like(targets, -1))):
        running.step(step, own_micro_batches(running, tokens, learned))
        found.append({name: tensor.clone() for name, tensor in master_weights(running).items()})
    running.deepspeed.destroy()
    return found
