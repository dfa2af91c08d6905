"""`linear_cross_entropy` is cross entropy of soft-capped logits, whatever the chunks, the split and the inputs; with
weights it is the weighted sum of what `token_log_likelihoods` gives for each token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from megatron_iberis.kernels.linear_cross_entropy import (
    chunked,
    linear_cross_entropy,
    reference,
    token_log_likelihoods,
)
from tests.support.ranks import Ranks, groups_of

SOFTCAP = 15.0
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(tokens: int, vocab: int, dtype: torch.dtype = torch.float32, size: float = 1.0) -> Inputs:
    """hidden [N, 24], weight [V, 24], targets [N] of which a quarter is ignored; logits of about `size`."""
    generator = torch.Generator().manual_seed(tokens + vocab)
    hidden = torch.randn(tokens, 24, generator=generator)
    weight = torch.randn(vocab, 24, generator=generator) * size / 24**0.5
    targets = torch.randint(vocab, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < 0.25] = -1
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def value_and_gradients(function: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> Any:
    loss = function(hidden, weight, targets, SOFTCAP)
    return loss.detach(), *torch.autograd.grad(loss * 0.37, (hidden, weight))


def assert_equals_reference(case: Inputs, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    found = value_and_gradients(linear_cross_entropy, *case)
    expected = value_and_gradients(reference.linear_cross_entropy, *case)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("vocab", [1, 2, 257, 1000])
@pytest.mark.parametrize("tokens", [1, 5, 300])
def test_loss_and_gradients_equal_reference(tokens: int, vocab: int) -> None:
    assert_equals_reference(inputs(tokens, vocab, size=3.0))


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 127, 128, 129, 200])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr(chunked, "CPU_CHUNK_BYTES", 1)  # 64 rows a chunk, the least
    assert_equals_reference(inputs(tokens, 100))


def test_bf16_is_near_reference_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "CPU_CHUNK_BYTES", 1)
    hidden, weight, targets = inputs(300, 257, torch.bfloat16)
    wide = (hidden.detach().float().requires_grad_(), weight.detach().float().requires_grad_(), targets)
    loss, *gradients = value_and_gradients(linear_cross_entropy, hidden, weight, targets)
    expected_loss, *expected = value_and_gradients(reference.linear_cross_entropy, *wide)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected_loss, rtol=1e-3, atol=0)
    for got, want in zip(gradients, expected, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.float() - want).norm() <= 0.02 * want.norm()


def test_ignored_targets_count_nothing() -> None:
    hidden, weight, targets = inputs(40, 100)
    kept = targets >= 0
    loss, d_hidden, d_weight = value_and_gradients(linear_cross_entropy, hidden, weight, targets)
    alone = value_and_gradients(linear_cross_entropy, hidden[kept].detach().requires_grad_(), weight, targets[kept])
    torch.testing.assert_close((loss, d_hidden[kept], d_weight), alone)
    assert not d_hidden[~kept].any()


def test_no_target_at_all_is_a_loss_of_zero_without_nan() -> None:
    hidden, weight, targets = inputs(40, 100)
    loss, d_hidden, d_weight = value_and_gradients(linear_cross_entropy, hidden, weight, torch.full_like(targets, -1))
    assert loss == 0
    assert not d_hidden.any()
    assert not d_weight.any()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_logits_give_finite_losses_and_gradients(size: float) -> None:
    case = inputs(64, 100, size=size)
    found = value_and_gradients(linear_cross_entropy, *case)
    assert all(tensor.isfinite().all() for tensor in found)
    assert_equals_reference(case, rtol=1e-4, atol=1e-5 * size)


def test_largest_loss_of_a_token_is_twice_the_cap() -> None:
    hidden, weight = torch.tensor([[1e4]]), torch.tensor([[1.0], [-1.0]])
    torch.testing.assert_close(
        [linear_cross_entropy(hidden, weight, torch.tensor([t]), SOFTCAP).item() for t in (0, 1)],
        [0.0, 2 * SOFTCAP],
        rtol=1e-6,
        atol=1e-6,
    )


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, targets = inputs(300, 257)
    with torch.no_grad():
        quiet = linear_cross_entropy(hidden, weight, targets, SOFTCAP)
    assert quiet == linear_cross_entropy(hidden, weight, targets, SOFTCAP)
    assert not quiet.requires_grad


def test_a_frozen_head_still_passes_the_gradient_on() -> None:
    hidden, weight, targets = inputs(30, 50)
    (expected,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, SOFTCAP), hidden)
    (found,) = torch.autograd.grad(linear_cross_entropy(hidden, weight.detach(), targets, SOFTCAP), hidden)
    torch.testing.assert_close(found, expected)


def split(tokens: int, vocab: int, rows: int, size: float) -> list[np.ndarray]:
    """Runs on a rank: loss, sum of the ranks' gradients of hidden, this rank's rows of the head's gradient."""
    groups = groups_of(2)
    hidden, weight, targets = inputs(tokens, vocab, size=size)
    first = groups.tp_rank * rows
    padded = torch.full((2 * rows, weight.shape[1]), 1e3)  # what padding holds must not matter
    padded[:vocab] = weight.detach()
    local = padded[first : first + rows].clone().requires_grad_()
    padding = min(rows, max(0, first + rows - vocab))
    loss = linear_cross_entropy(hidden, local, targets, SOFTCAP, first, padding, groups.tp)
    d_hidden, d_weight = torch.autograd.grad(loss * 0.37, (hidden, local))
    torch.distributed.all_reduce(d_hidden, group=groups.tp)
    return [loss.detach().numpy(), d_hidden.numpy(), d_weight.numpy()]


@pytest.mark.parametrize("size", [1.0, 1e4])
@pytest.mark.parametrize(
    ("tokens", "vocab", "rows"),
    [
        pytest.param(70, 100, 50, id="even"),
        pytest.param(70, 257, 129, id="a-row-of-padding"),
        pytest.param(70, 2, 2, id="a-rank-of-nothing-but-padding"),
        pytest.param(1100, 4093, 2047, id="ranks-agree-on-chunks-whatever-their-padding"),
    ],
)
def test_split_vocabulary_gives_the_whole_ones_loss_and_gradients(
    two_ranks: Ranks, tokens: int, vocab: int, rows: int, size: float
) -> None:
    case = inputs(tokens, vocab, size=size)
    loss, d_hidden, d_weight = value_and_gradients(reference.linear_cross_entropy, *case)
    parts = two_ranks(split, tokens, vocab, rows, size)
    for found_loss, found_hidden, _ in parts:
        torch.testing.assert_close(torch.from_numpy(found_loss), loss, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.from_numpy(found_hidden), d_hidden, rtol=1e-4, atol=1e-5 * size)
    whole = torch.from_numpy(np.concatenate([part[2] for part in parts]))
    torch.testing.assert_close(whole[:vocab], d_weight, rtol=1e-4, atol=1e-5)
    assert not whole[vocab:].any()


# Weights, and single tokens


def factors(tokens: int) -> torch.Tensor:
    """A number a token of either sign, some of them 0."""
    numbers = torch.randn(tokens, generator=torch.Generator().manual_seed(tokens))
    numbers[::7] = 0.0
    return numbers


def weighted(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Weighted loss and its gradients."""
    loss = linear_cross_entropy(hidden, weight, targets, SOFTCAP, weights=factors(len(hidden)))
    return [loss.detach(), *torch.autograd.grad(loss, (hidden, weight))]


def single(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Log likelihoods, and the gradients of their weighted sum."""
    found = token_log_likelihoods(hidden, weight, targets, SOFTCAP)
    return [found.detach(), *torch.autograd.grad((found * factors(len(hidden))).sum(), (hidden, weight))]


def in_fp64(case: Inputs) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What `weighted` and `single` are to give, from the reference in fp64."""
    hidden, weight = (x.detach().double().requires_grad_() for x in case[:2])
    found = reference.token_log_likelihoods(hidden, weight, case[2], SOFTCAP)
    total = (found * factors(len(hidden)).double()).sum()
    gradients = torch.autograd.grad(total, (hidden, weight))
    loss = reference.linear_cross_entropy(hidden, weight, case[2], SOFTCAP, factors(len(hidden)).double())
    both = [loss, *(-g for g in gradients)], [found, *gradients]
    return tuple([x.detach().float() for x in part] for part in both)  # type: ignore[return-value]


@pytest.mark.parametrize("vocab", [1, 2, 257, 1000])
@pytest.mark.parametrize("tokens", [1, 5, 300])
def test_weighted_loss_and_single_likelihoods_equal_the_fp64_reference(tokens: int, vocab: int) -> None:
    case = inputs(tokens, vocab, size=3.0)
    expected_loss, expected_single = in_fp64(case)
    torch.testing.assert_close(weighted(*case), expected_loss, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(single(*case), expected_single, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 128, 129, 200])
def test_chunks_change_no_weighted_loss_and_no_likelihood(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr(chunked, "CPU_CHUNK_BYTES", 1)
    case = inputs(tokens, 100)
    expected_loss, expected_single = in_fp64(case)
    torch.testing.assert_close(weighted(*case), expected_loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(single(*case), expected_single, rtol=1e-5, atol=1e-5)


def test_weights_of_one_change_no_bit() -> None:
    case = inputs(300, 257)

    def of_one(*arguments: Any) -> torch.Tensor:
        return linear_cross_entropy(*arguments, weights=torch.ones(300))

    for one, other in zip(
        value_and_gradients(of_one, *case), value_and_gradients(linear_cross_entropy, *case), strict=True
    ):
        assert torch.equal(one, other)


def test_weighted_loss_is_the_weighted_sum_of_each_tokens_loss() -> None:
    hidden, weight, targets = inputs(130, 50)
    alone = torch.stack(
        [linear_cross_entropy(hidden[i : i + 1], weight, targets[i : i + 1], SOFTCAP) for i in range(130)]
    )
    torch.testing.assert_close(token_log_likelihoods(hidden, weight, targets, SOFTCAP), -alone, rtol=1e-5, atol=1e-6)
    loss = linear_cross_entropy(hidden, weight, targets, SOFTCAP, weights=factors(130))
    torch.testing.assert_close(loss, (alone * factors(130)).sum(), rtol=1e-5, atol=1e-5)


def test_an_ignored_token_counts_nothing_whatever_its_weight() -> None:
    hidden, weight, targets = inputs(40, 100)
    weights = factors(40)
    weights[targets < 0] = torch.nan
    loss = linear_cross_entropy(hidden, weight, targets, SOFTCAP, weights=weights)
    d_hidden, d_weight = torch.autograd.grad(loss, (hidden, weight))
    expected, _, expected_weight = weighted(hidden, weight, targets)
    assert torch.equal(loss, expected)
    assert torch.equal(d_weight, expected_weight)
    assert not d_hidden[targets < 0].any()
    found = token_log_likelihoods(hidden, weight, targets, SOFTCAP)
    assert not found[targets < 0].any()
    assert not torch.autograd.grad(found.sum(), hidden)[0][targets < 0].any()


def test_likelihoods_in_bf16_are_near_the_reference() -> None:
    case = inputs(300, 257, torch.bfloat16)
    for found, expected in zip((weighted(*case), single(*case)), in_fp64(case), strict=True):
        assert [x.dtype for x in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
        for got, want in zip(found, expected, strict=True):
            assert (got.float() - want).norm() <= 0.02 * want.norm()


def split_with_weights(tokens: int, vocab: int, rows: int) -> list[list[np.ndarray]]:
    """Runs on a rank: of weighted loss and likelihoods the value, hidden's summed gradient, weight's own."""
    groups = groups_of(2)
    hidden, weight, targets = inputs(tokens, vocab)
    first = groups.tp_rank * rows
    padded = torch.full((2 * rows, weight.shape[1]), 1e3)
    padded[:vocab] = weight.detach()
    local = padded[first : first + rows].clone().requires_grad_()
    part = (SOFTCAP, first, min(rows, max(0, first + rows - vocab)), groups.tp)
    loss = linear_cross_entropy(hidden, local, targets, *part, weights=factors(tokens))
    likelihoods = token_log_likelihoods(hidden, local, targets, *part)
    found = []
    for value, total in ((loss, loss), (likelihoods, (likelihoods * factors(tokens)).sum())):
        d_hidden, d_weight = torch.autograd.grad(total, (hidden, local))
        torch.distributed.all_reduce(d_hidden, group=groups.tp)
        found.append([x.detach().numpy() for x in (value, d_hidden, d_weight)])
    return found


@pytest.mark.parametrize(
    ("tokens", "vocab", "rows"),
    [
        pytest.param(70, 100, 50, id="even"),
        pytest.param(70, 257, 129, id="a-row-of-padding"),
        pytest.param(70, 2, 2, id="a-rank-of-nothing-but-padding"),
        pytest.param(1100, 4093, 2047, id="several-chunks"),
    ],
)
def test_split_vocabulary_gives_the_same_weighted_loss_and_likelihoods(
    two_ranks: Ranks, tokens: int, vocab: int, rows: int
) -> None:
    parts = two_ranks(split_with_weights, tokens, vocab, rows)
    for which, (value, d_hidden, d_weight) in enumerate(in_fp64(inputs(tokens, vocab))):
        for part in parts:
            torch.testing.assert_close(torch.from_numpy(part[which][0]), value, rtol=1e-5, atol=2e-5)
            torch.testing.assert_close(torch.from_numpy(part[which][1]), d_hidden, rtol=1e-4, atol=1e-5)
        whole = torch.from_numpy(np.concatenate([part[which][2] for part in parts]))
        torch.testing.assert_close(whole[:vocab], d_weight, rtol=1e-4, atol=2e-5)
        assert not whole[vocab:].any()


@pytest.mark.parametrize("temperature", [0.4, 1.7])
@pytest.mark.parametrize("padding", [0, 3])
def test_temperature_divides_the_capped_logits(temperature: float, padding: int) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(70, 16, requires_grad=True), torch.randn(40, 16, requires_grad=True)
    targets = torch.randint(-1, 40, (70,))
    factors = torch.randn(70)
    padded = torch.cat([weight, torch.randn(padding, 16)])
    found = token_log_likelihoods(hidden, padded, targets, SOFTCAP, padding=padding, temperature=temperature)
    gradients = torch.autograd.grad((found * factors).sum(), (hidden, weight))
    exact_hidden, exact_weight = hidden.double().detach().requires_grad_(), weight.double().detach().requires_grad_()
    expected = reference.token_log_likelihoods(exact_hidden, exact_weight, targets, SOFTCAP, temperature)
    exact = torch.autograd.grad((expected * factors).sum(), (exact_hidden, exact_weight))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
