"""How the next token is chosen from the model's logits.

* The order is that of Hugging Face's processors: bias, repetition penalty, presence and frequency penalties,
  temperature, top_k, top_p, min_p; what is left is drawn from, or the likeliest taken at temperature 0.
* A draw is a function of its distribution and of (seed, sample, position) alone, by Philox, a counter-based
  generator: whatever else is in the batch, and on whatever machine, the same random number falls to it.
* Log-probabilities are those of the model's own distribution, before any of the above, as OpenAI's and vLLM's are.
* The work is numpy's, in fp64 from the first sum on, on the candidates that top_k leaves. No torch is imported.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np

from megatron_iberis.config.checks import Above, AtLeast, AtMost, check_bounds
from megatron_iberis.errors import InputError

if TYPE_CHECKING:
    import torch

LARGEST_BIAS = 100
_LARGEST_SEED = 2**63 - 1  # a seed is an int64, as OpenAI's
_WORD = 2**64 - 1


@dataclass(frozen=True)
class Sampling:
    """How to choose among the logits; the defaults leave the model's distribution as it is.

    InputError for what is out of its bounds.
    """

    temperature: Annotated[float, AtLeast(0), AtMost(100)] = 1.0
    """Divides the logits; 0: the likeliest token each time."""
    top_k: Annotated[int, AtLeast(0)] = 0
    """Only so many of the likeliest tokens (and those as likely as the last of them); 0: all."""
    top_p: Annotated[float, Above(0), AtMost(1)] = 1.0
    """Only the likeliest tokens that make up this share of the probability together."""
    min_p: Annotated[float, AtLeast(0), AtMost(1)] = 0.0
    """Only tokens at least this share as likely as the likeliest one."""
    repetition_penalty: Annotated[float, Above(0), AtMost(100)] = 1.0
    """Divides positive logits of tokens that the prompt or the answer holds already, and multiplies negative ones."""
    presence_penalty: Annotated[float, AtLeast(-2), AtMost(2)] = 0.0
    """Taken from the logits of tokens that the answer holds already."""
    frequency_penalty: Annotated[float, AtLeast(-2), AtMost(2)] = 0.0
    """Taken from the logits of tokens of the answer, times how often it holds them."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits: id -> -100 to 100."""
    seed: Annotated[int | None, AtLeast(-_LARGEST_SEED - 1), AtMost(_LARGEST_SEED)] = None
    """Decides the draws; None: one is to be drawn, by `seeded`."""
    logprobs: Annotated[int, AtLeast(0), AtMost(20)] = 0
    """How many of the likeliest tokens to report at each position, with their log-probabilities."""

    def __post_init__(self) -> None:
        check_bounds("sampling", self, [f.name for f in fields(self) if getattr(self, f.name) is not None])
        for token, bias in self.logit_bias.items():
            if token < 0 or not -LARGEST_BIAS <= bias <= LARGEST_BIAS:
                raise InputError(
                    f"sampling.logit_bias is {bias} for token {token}: it must be -{LARGEST_BIAS} to {LARGEST_BIAS}, "
                    "for an id of the vocabulary."
                )

    def seeded(self) -> Sampling:
        """The same with a seed: its own, or a fresh one to be told to whoever may want the answer again."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(32))


@dataclass(frozen=True)
class Choice:
    """A token that was chosen, with the model's log-probability of it and of the likeliest ones, falling."""

    id: int
    logprob: float
    top: list[tuple[int, float]]
    reported: tuple[float, ...] = ()
    """Log-probabilities of ids that were asked for (`Engine.submit`), in their order."""
    drawn: float = 0.0
    """The log-probability in the distribution that it was drawn from, after temperature and all else."""


def choose(
    logits: torch.Tensor,
    sampling: Sampling,
    sample: int,
    position: int,
    context: Sequence[int],
    generated: Sequence[int],
) -> Choice:
    """The next token from logits [V], of all ids that may be chosen.

    sample: which of several answers to one prompt, from 0. position: of the token; each of an answer has one of its
    own. context: ids of the prompt; generated: of the answer so far (for the penalties). `sampling` has a seed.
    FloatingPointError if there is no distribution in the logits, since one of them is NaN or infinite.
    """
    assert sampling.seed is not None, "Sampling.seeded() gives a seed"
    raw = _array(logits)
    normalizer = _log_sum_exp(raw)
    if not math.isfinite(normalizer):
        raise FloatingPointError("the model's logits are not finite: its weights or its inputs are damaged.")
    adjusted, drawn = _adjusted(raw, sampling, context, generated), 0.0
    if sampling.temperature == 0:
        chosen = int(adjusted.argmax())
    else:
        ids, weights = _candidates(adjusted, sampling)
        index, share = _draw(weights, uniform(sampling.seed, sample, position))
        chosen, drawn = int(ids[index]), math.log(share) if share > 0 else -math.inf
    return replace(_told(raw, normalizer, chosen, sampling.logprobs), drawn=drawn)


def score(logits: torch.Tensor, token: int, logprobs: int) -> Choice:
    """A token that was there already, told as `choose` would; logits: [V], before it; logprobs: as in Sampling."""
    raw = _array(logits)
    return _told(raw, _log_sum_exp(raw), token, logprobs)


def _told(raw: np.ndarray, normalizer: float, token: int, logprobs: int) -> Choice:
    top = _largest(raw, logprobs) if logprobs else ()
    return Choice(token, float(raw[token] - normalizer), [(int(i), float(raw[i] - normalizer)) for i in top])


def filtered(
    logits: torch.Tensor, sampling: Sampling, context: Sequence[int] = (), generated: Sequence[int] = ()
) -> torch.Tensor:
    """The distribution that `choose` draws from: log-probabilities fp64 [V], -inf for what is left out."""
    import torch

    adjusted = _adjusted(_array(logits), sampling, context, generated)
    found = np.full(adjusted.shape, -np.inf)
    if sampling.temperature == 0:
        found[adjusted.argmax()] = 0.0
    else:
        ids, weights = _candidates(adjusted, sampling)
        with np.errstate(divide="ignore"):  # log 0 is -inf
            found[ids] = np.log(weights / weights.sum())
    return torch.from_numpy(found)


def uniform(seed: int, sample: int, position: int) -> float:
    """A random number in [0, 1), of 53 bits, that the three decide."""
    key = np.array([seed & _WORD, sample], dtype=np.uint64)
    counter = np.array([position, 0, 0, 0], dtype=np.uint64)
    word = np.random.Philox(key=key, counter=counter).random_raw()  # numpy keeps this stream the same for ever
    return (int(word) >> 11) * 2.0**-53


def _array(logits: torch.Tensor) -> np.ndarray:
    array: np.ndarray = logits.detach().float().cpu().numpy()
    return array


def _log_sum_exp(logits: np.ndarray) -> float:
    largest = logits.max()
    with np.errstate(invalid="ignore"):
        return float(largest + np.log(np.exp(logits - largest).sum(dtype=np.float64)))


def _adjusted(logits: np.ndarray, sampling: Sampling, context: Sequence[int], generated: Sequence[int]) -> np.ndarray:
    """The logits with bias and penalties."""
    repeated = sampling.repetition_penalty != 1 and (len(context) or len(generated))
    counted = (sampling.presence_penalty or sampling.frequency_penalty) and len(generated)
    if not (sampling.logit_bias or repeated or counted):
        return logits
    logits = logits.astype(np.float64)
    for token, bias in sampling.logit_bias.items():
        if token >= logits.size:
            raise InputError(
                f"sampling.logit_bias names token {token}: the vocabulary ends with {logits.size - 1:,}."
            )
        logits[token] += bias
    if repeated:
        seen = np.unique(np.array([*context, *generated], dtype=np.int64))
        penalty = sampling.repetition_penalty
        logits[seen] = np.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
    if counted:
        for token, count in Counter(generated).items():
            logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
    return logits


def _candidates(logits: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Ids that temperature, top_k, top_p and min_p leave, rising, and how likely each is beside the likeliest."""
    ids = np.arange(logits.size)
    if 0 < sampling.top_k < logits.size:
        ids = np.flatnonzero(logits >= _nth_largest(logits, sampling.top_k))
        logits = logits[ids]
    scores = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # a temperature near 0 makes -inf of what is not the likeliest
        weights = np.exp((scores - scores.max()) / sampling.temperature)
    if sampling.top_p < 1:
        kept = _nucleus(weights, sampling.top_p)
        ids, weights = ids[kept], weights[kept]
    if sampling.min_p > 0:
        kept = np.flatnonzero(weights >= sampling.min_p)
        ids, weights = ids[kept], weights[kept]
    return ids, weights


def _nucleus(weights: np.ndarray, top_p: float) -> np.ndarray:
    """Indices, rising, of the fewest largest weights that make up the share `top_p` of all."""
    falling = np.sort(weights)[::-1]  # values alone: sorting indices takes three times as long
    sums = np.cumsum(falling)
    count = min(1 + int(np.searchsorted(sums, top_p * sums[-1], side="left")), weights.size)
    least = falling[count - 1]
    larger, equal = np.flatnonzero(weights > least), np.flatnonzero(weights == least)
    return np.sort(np.concatenate([larger, equal[: count - larger.size]]))


def _nth_largest(values: np.ndarray, n: int) -> float:
    found: float = np.partition(values, values.size - n)[values.size - n]
    return found


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest values, falling, the first of equals first."""
    if count == 1:  # a tenth of the time of what follows
        return np.array([values.argmax()])
    count = min(count, values.size)
    found = np.flatnonzero(values >= _nth_largest(values, count))
    return found[np.argsort(-values[found], kind="stable")][:count]


def _draw(weights: np.ndarray, uniform: float) -> tuple[int, float]:
    """The index at which the sum of the weights passes the share `uniform` of it all, and its own share."""
    sums = np.cumsum(weights)
    index = min(int(np.searchsorted(sums, uniform * sums[-1], side="right")), weights.size - 1)
    return index, float(weights[index] / sums[-1])
