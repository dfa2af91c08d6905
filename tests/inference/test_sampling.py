"""The next token: Hugging Face's distributions, draws that nothing else touches, the model's log-probabilities."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from megatron_iberis.errors import InputError
from megatron_iberis.inference.sampling import Choice, Sampling, choose, filtered, uniform

VOCABULARY = 50


def logits(seed: int, size: int = VOCABULARY, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def pick(
    of: torch.Tensor, sampling: Sampling, position: int = 0, sample: int = 0, generated: tuple[int, ...] = ()
) -> Choice:
    return choose(of, sampling.seeded(), sample, position, (), generated)


def of_hugging_face(of: torch.Tensor, sampling: Sampling, seen: list[int]) -> torch.Tensor:
    """The distribution that Hugging Face's own processors leave, in fp64."""
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1:
        steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        steps.append(MinPLogitsWarper(sampling.min_p))
    found: torch.Tensor = steps(torch.tensor([seen], dtype=torch.long), of.double()[None])[0]
    return found.softmax(-1)


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.05, 0.3, 0.8, 1.0, 1.7, 10.0]),
    top_k=st.sampled_from([0, 1, 2, 7, 49, 50, 51, 400]),
    top_p=st.one_of(st.just(1.0), st.floats(0.001, 0.999)),
    min_p=st.one_of(st.just(0.0), st.floats(0.0001, 1.0)),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7, 5.0]),
)


@settings(max_examples=300, deadline=None)
@given(sampling=samplings, seed=st.integers(0, 1000), seen=st.lists(st.integers(0, 49), max_size=8))
def test_distributions_are_hugging_faces(sampling: Sampling, seed: int, seen: list[int]) -> None:
    of = logits(seed)
    half = len(seen) // 2
    found = filtered(of, sampling, seen[:half], seen[half:]).exp()
    torch.testing.assert_close(found, of_hugging_face(of, sampling, seen), rtol=1e-9, atol=1e-12)
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])  # from nearly flat, where top_p keeps most, to a few tokens
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 0.9999])
def test_a_large_vocabulary_is_filtered_alike(spread: float, top_p: float) -> None:
    of, sampling = logits(1, 5000, spread), Sampling(top_p=top_p)
    torch.testing.assert_close(filtered(of, sampling).exp(), of_hugging_face(of, sampling, []), rtol=1e-9, atol=1e-12)


def test_bias_and_penalties_by_their_definitions() -> None:
    of, generated = logits(2), [3, 3, 3, 9]
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={4: 100, 9: -1.5})
    wanted = of.double()
    wanted[3] -= 0.5 + 3 * 0.25
    wanted[9] -= 0.5 + 0.25 + 1.5
    wanted[4] += 100
    torch.testing.assert_close(
        filtered(of, sampling, [7, 7], generated), wanted.log_softmax(-1), rtol=1e-5, atol=1e-5
    )
    assert pick(of, sampling).id == 4
    assert pick(of, replace(sampling, temperature=0)).id == 4
    banned = Sampling(logit_bias=dict.fromkeys(range(1, VOCABULARY), -100))
    assert {pick(of, banned, position).id for position in range(50)} == {0}


def test_the_logits_are_left_as_they_were() -> None:
    of = logits(3)
    before = of.clone()
    pick(of, Sampling(repetition_penalty=2, logit_bias={1: 5}, top_p=0.5), generated=(1, 2))
    assert torch.equal(of, before)


def test_temperature_0_takes_the_likeliest_and_the_first_of_equals() -> None:
    of = torch.tensor([0.0, 2.0, 1.0, 2.0])
    for seed in range(5):
        assert pick(of, Sampling(temperature=0, seed=seed)).id == 1
    assert filtered(of, Sampling(temperature=0)).exp().tolist() == [0, 1, 0, 0]
    assert pick(of, Sampling(temperature=0, repetition_penalty=1.5), generated=(1,)).id == 3
    assert pick(logits(4), Sampling(temperature=1e-300)).id == int(logits(4).argmax())


def test_draws_follow_the_distribution() -> None:
    of, sampling = logits(5, 8, 1.0), Sampling(temperature=1.3, top_k=6, seed=7)
    count = 20_000
    drawn = torch.tensor([pick(of, sampling, position).id for position in range(count)]).bincount(minlength=8)
    wanted = filtered(of, sampling).exp() * count
    assert (drawn[wanted == 0] == 0).all()
    statistic = ((drawn - wanted)[wanted > 0] ** 2 / wanted[wanted > 0]).sum()
    assert statistic < 20.5  # chi-square with 5 degrees of freedom: one seed in 1,000 is above


def test_the_random_number_is_that_of_seed_sample_and_position_alone() -> None:
    # The same on every machine and with every numpy: an answer can be had again.
    assert [uniform(0, 0, 0), uniform(42, 3, 17), uniform(-1, 0, 5)] == [
        0.011546754286331562,
        0.8000798352425926,
        0.46292535650502586,
    ]
    seen = {uniform(seed, sample, position) for seed in range(9) for sample in range(9) for position in range(9)}
    assert len(seen) == 729
    assert all(0 <= number < 1 for number in seen)
    numbers = np.sort([uniform(seed, 0, position) for seed in range(20) for position in range(500)])
    assert np.abs(numbers - np.linspace(0, 1, numbers.size)).max() < 0.02  # Kolmogorov-Smirnov: 0.0195 at 1 in 1,000


def test_samples_have_first_tokens_of_their_own() -> None:
    flat = torch.zeros(1000)
    assert len({pick(flat, Sampling(seed=1), sample=sample).id for sample in range(20)}) > 15


def test_a_small_change_of_the_logits_rarely_changes_the_draw() -> None:
    """Draws run through the vocabulary in its order, so that nearly equal tokens may swap places."""
    of = torch.zeros(1000) + torch.arange(1000) * 1e-8
    shaken = of.flip(0)
    drawn = [(pick(of, Sampling(seed=s)).id, pick(shaken, Sampling(seed=s)).id) for s in range(200)]
    assert sum(a == b for a, b in drawn) >= 198


def test_without_a_seed_one_is_drawn_and_told() -> None:
    assert Sampling(seed=5).seeded().seed == 5
    assert Sampling(seed=0).seeded().seed == 0
    drawn = {Sampling().seeded().seed for _ in range(5)}
    assert len(drawn) == 5
    assert None not in drawn


def test_log_probabilities_are_the_models_own() -> None:
    of = logits(6)
    own = of.double().log_softmax(-1)
    sampling = Sampling(temperature=0.3, top_k=3, logit_bias={2: 50.0}, logprobs=4, seed=1)
    choice = pick(of, sampling, generated=(1,))
    assert choice.id == 2
    assert choice.logprob == pytest.approx(own[2].item(), abs=1e-5)
    values, ids = own.topk(4)
    assert [token for token, _ in choice.top] == ids.tolist()
    assert [value for _, value in choice.top] == pytest.approx(values.tolist(), abs=1e-5)
    assert pick(of, replace(sampling, logprobs=0)).top == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_any_type_are_taken(dtype: torch.dtype) -> None:
    of = logits(8).to(dtype)
    assert pick(of, Sampling(temperature=0)).id == int(of.argmax())


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_model_is_no_draw(broken: float) -> None:
    of = logits(9)
    of[7] = broken
    for temperature in (0, 1):
        with pytest.raises(FloatingPointError, match="not finite"):
            pick(of, Sampling(temperature=temperature))
    of[7] = -math.inf  # a token that can't be
    assert pick(of, Sampling()).id != 7


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": -0.1}, r"sampling\.temperature is -0.1: it must be at least 0 and at most 100"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1: it must be at least 0"),
        ({"top_p": 0.0}, "top_p is 0.0: it must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": 1.1}, "min_p is 1.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0: it must be above 0"),
        ({"presence_penalty": 2.1}, "presence_penalty is 2.1: it must be at least -2 and at most 2"),
        ({"frequency_penalty": -2.1}, "frequency_penalty is -2.1"),
        ({"logprobs": 21}, "logprobs is 21: it must be at least 0 and at most 20"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"logit_bias": {3: 101}}, "logit_bias is 101 for token 3: it must be -100 to 100"),
        ({"logit_bias": {3: math.nan}}, "logit_bias is nan for token 3"),
        ({"logit_bias": {-1: 1}}, "logit_bias is 1 for token -1"),
    ],
)
def test_what_is_out_of_its_bounds_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Sampling(**wrong)


def test_a_bias_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="token 50: the vocabulary ends with 49"):
        pick(logits(1), Sampling(logit_bias={50: 1}))


@pytest.mark.parametrize("sampling", [Sampling(0.6, seed=3), Sampling(1.0, seed=3), Sampling(1.3, top_k=5, seed=3)])
def test_the_probability_of_a_draw_is_that_in_the_distribution_it_was_drawn_from(sampling: Sampling) -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1)) * 3
    for position in range(20):
        choice = choose(logits, sampling, 0, position, (), ())
        assert choice.drawn == pytest.approx(float(filtered(logits, sampling)[choice.id]), abs=1e-9)
