"""Prompts, their order, groups of answers and the batches made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from megatron_iberis.data.batches import Batch
from megatron_iberis.data.plan import BatchPlan
from megatron_iberis.rollouts.answers import Answer, Group, load_trained_groups, save_groups
from megatron_iberis.rollouts.batches import batches_of_groups
from megatron_iberis.rollouts.prompts import PromptOrder
from megatron_iberis.training.reinforce import ADVANTAGES, DRAWN, PolicyGradient


def answer(ids: tuple[int, ...], reward: float, forced: tuple[int, ...] = ()) -> Answer:
    drawn = tuple(None if place in forced else -0.1 * (place + 1) for place in range(len(ids)))
    return Answer(ids, drawn, "text", "stop", reward)


GROUPS = [
    Group(3, (7, 8), (answer((11, 12, 13), 1.0, forced=(1,)), answer((14,), 0.0))),
    Group(5, (9,), (answer((21,) * 70, 0.0), answer((22, 23), 0.5))),
]


def test_an_epoch_takes_each_prompt_once_and_the_next_in_another_order() -> None:
    order = PromptOrder(prompts=12, groups=3, refill=2, seed=1)
    assert order.batches_per_epoch == 4
    first, second = ([order.taken(batch) for batch in part] for part in (range(4), range(4, 8)))
    for epoch in (first, second):
        assert sorted(number for batch in epoch for number in batch) == list(range(12))
    assert first != second
    assert [order.taken(batch) for batch in range(4)] == first


def test_spare_prompts_are_others_and_bounded() -> None:
    order = PromptOrder(prompts=12, groups=3, refill=3, seed=1)
    for batch in range(6):
        spare = order.spare(batch)
        assert len(spare) == len(set(spare)) == 6
        assert not set(spare) & set(order.taken(batch))
    assert PromptOrder(12, 3, 1, 1).spare(0) == []
    assert sorted(PromptOrder(5, 3, 9, 1).spare(0) + PromptOrder(5, 3, 9, 1).taken(0)) == [0, 1, 2, 3, 4]


def test_targets_are_what_was_drawn_and_nothing_else() -> None:
    """Neither prompts nor what was forced nor padding; with its log-probability and advantage each."""
    (batch,) = batches_of_groups(GROUPS, BatchPlan(4, 4, 0, 1))
    assert batch.tokens.shape == (4, 128)
    assert (batch.targets >= 0).sum(dim=1).tolist() == [70, 2, 1, 2]  # by length, prompts included
    row = 1
    assert batch.tokens[row, :4].tolist() == [7, 8, 11, 12]
    assert batch.targets[row, :5].tolist() == [-1, 11, -1, 13, -1]
    assert batch.more[ADVANTAGES][row, :5].tolist() == [0, 0.5, 0, 0.5, 0]
    torch.testing.assert_close(batch.more[DRAWN][row, :5], torch.tensor([0, -0.1, 0, -0.3, 0]))


@pytest.mark.parametrize(("ranks", "micro"), [(1, 1), (2, 1), (2, 2)])
def test_all_ranks_together_have_every_answer_once(ranks: int, micro: int) -> None:
    batches = [
        batch for rank in range(ranks) for batch in batches_of_groups(GROUPS, BatchPlan(8, micro, rank, ranks), 2)
    ]
    rows = [row[row >= 0].tolist() for batch in batches for row in batch.targets]
    assert sorted(filter(None, rows)) == [[11, 13], [14], [21] * 70, [22, 23]]
    assert len(rows) == 8
    assert all(batch.tokens.shape[1] % 2 == 0 for batch in batches)
    assert min(batch.tokens.shape[1] for batch in batches) < max(batch.tokens.shape[1] for batch in batches)


def test_a_file_gives_back_what_was_trained_on_to_the_bit(tmp_path: Path) -> None:
    third = Group(9, (1,), (answer((2,), 0.1), answer((2,), 0.1)))
    assert not third.tells
    path = tmp_path / "rollouts" / "batch.jsonl"
    save_groups(path, [GROUPS[0], third, GROUPS[1]], GROUPS, {3: "a:1", 5: "a:2", 9: "a:3"})
    assert load_trained_groups(path) == GROUPS


def test_every_trained_token_counts_the_same() -> None:
    """One denominator: the gradient of a token is its advantage over their number, in long answers and in short."""
    (batch,) = batches_of_groups(GROUPS, BatchPlan(4, 4, 0, 1))
    found = batch.more[DRAWN].clone().requires_grad_()
    objective = PolicyGradient()
    loss, figures = objective(lambda *_, **__: found, batch)
    (gradient,) = torch.autograd.grad(loss, found)
    assert objective.count(batch) == 75
    assert torch.equal(gradient, -batch.more[ADVANTAGES])
    assert float(figures["probability_error"]) == float(figures["kl"]) == float(figures["clipped"]) == 0
    assert float(figures["entropy"]) == pytest.approx(-float(batch.more[DRAWN].sum()))


def test_a_ratio_beyond_its_bounds_has_no_gradient() -> None:
    """Above for what was worth more than others, below for what was worth less; never the other way round."""
    drawn, advantages = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    targets = torch.tensor([[1, 2, 3, 4]])
    batch = Batch(targets, targets, more={ADVANTAGES: advantages, DRAWN: drawn})
    found = torch.tensor([[0.5, -0.5, 0.5, -0.5]], requires_grad=True)
    loss, figures = PolicyGradient(clip=(0.2, 0.28))(lambda *_, **__: found, batch)
    (gradient,) = torch.autograd.grad(loss, found)
    assert (gradient == 0).tolist() == [[True, False, False, True]]
    assert float(figures["clipped"]) == 2
    assert float(figures["probability_error"]) > 0.4
    assert float(figures["kl"]) > 0
