"""The figures of a run: what the trainer tells of a step, and what follows from it (rates, MFU, time left)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from megatron_iberis.config import ModelConfig, Recipe
from megatron_iberis.hardware.peaks import Peak
from megatron_iberis.monitor.events import Step

LOSS_DECAY = 0.9
RECENT_STEPS = 20
"""Steps that the console's rate and the time left are averaged over."""
SPIKE_DECAY = 0.98
SPIKE_DEVIATIONS = 6.0
SPIKE_STEPS = 20
"""A loss is a spike when it lies so many running deviations above the running mean; none before so many steps."""


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, as the trainer tells it."""

    step: int
    """Number of the step just done, from 0."""
    loss: float
    """Mean nats a token over the whole batch, all ranks."""
    gradient_norm: float
    """Global L2 norm of the raw gradient."""
    learning_rates: dict[str, float]
    """By kind of parameter: matrix, embedding, unembedding, convolution."""
    momentum: float
    """Muon's."""
    seconds: float
    """Wall clock of the step, waiting for data included."""
    tokens: int
    """Tokens of the step, all ranks."""
    skipped: bool = False
    """Whether loss or gradient were not finite, so that nothing was updated."""


class LossAverage:
    """Exponential moving average without the bias towards its start. A loss that is no number leaves it as it is."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, loss: float) -> float:
        """Takes a loss in, and gives the average; for nan or inf that loss itself."""
        if not math.isfinite(loss):
            return loss
        self._sum = LOSS_DECAY * self._sum + (1 - LOSS_DECAY) * loss
        self._weight = LOSS_DECAY * self._weight + (1 - LOSS_DECAY)
        return self._sum / self._weight


class SpikeWatch:
    """Finds losses that lie far above those before: running mean and mean absolute deviation, without bias."""

    def __init__(self) -> None:
        self._mean = self._deviation = self._weight = 0.0
        self._count = 0

    def add(self, loss: float) -> float | None:
        """Takes a loss in; gives its distance from the mean, in deviations, where it is a spike, else None."""
        if not math.isfinite(loss):
            return None
        spike = None
        if self._count >= SPIKE_STEPS:
            mean, deviation = self._mean / self._weight, max(self._deviation / self._weight, 1e-3)
            if loss > mean + SPIKE_DEVIATIONS * deviation:
                spike = (loss - mean) / deviation
                loss = mean + SPIKE_DEVIATIONS * deviation  # an outlier moves the figures, but not far
        mean = self._mean / self._weight if self._count else loss
        self._mean = SPIKE_DECAY * self._mean + (1 - SPIKE_DECAY) * loss
        self._deviation = SPIKE_DECAY * self._deviation + (1 - SPIKE_DECAY) * abs(loss - mean)
        self._weight = SPIKE_DECAY * self._weight + (1 - SPIKE_DECAY)
        self._count += 1
        return spike


class Tracker:
    """Turns each `StepMetrics` into a `Step`. world: ranks; peak: of one of them."""

    def __init__(self, recipe: Recipe, world: int, peak: Peak) -> None:
        self.loss = LossAverage()
        self.spikes = SpikeWatch()
        self.skipped_steps = 0
        self._recipe, self._flops = recipe, peak.flops * world
        self._warm = False
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT_STEPS)
        self._validation_seconds = 0.0

    def add(self, metrics: StepMetrics, memory_bytes: int) -> Step:
        """The event of a step. memory_bytes: peak use of this rank."""
        done, warm = metrics.step + 1, self._warm
        if warm:
            self._recent.append((metrics.tokens, max(metrics.seconds, 1e-9)))
        self._warm = True
        self.skipped_steps += metrics.skipped
        tokens, seconds = (sum(column) for column in zip(*self._recent, strict=True)) if self._recent else (0, 0.0)
        return Step(
            step=done,
            loss=metrics.loss,
            loss_smooth=self.loss.add(metrics.loss),
            gradient_norm=metrics.gradient_norm,
            learning_rates=metrics.learning_rates,
            momentum=metrics.momentum,
            seconds=metrics.seconds,
            tokens=metrics.tokens,
            skipped=metrics.skipped,
            tokens_per_second=metrics.tokens / max(metrics.seconds, 1e-9),
            mfu=self._mfu(metrics.tokens, max(metrics.seconds, 1e-9)),
            memory_bytes=memory_bytes,
            skipped_steps=self.skipped_steps,
            warm=warm,
            recent_tokens_per_second=tokens / seconds if seconds else None,
            recent_mfu=self._mfu(int(tokens), seconds) if seconds else None,
            seconds_left=self._seconds_left(done, seconds / len(self._recent)) if seconds else None,
            loss_spike=self.spikes.add(metrics.loss),
        )

    def resume(self, losses: list[float], skipped_steps: int) -> None:
        """Learns what the steps before a resume were like: the smoothed figures continue from there."""
        for loss in losses:
            self.loss.add(loss)
            self.spikes.add(loss)
        self.skipped_steps = skipped_steps

    def recent_seconds(self) -> list[float]:
        """Of the last steps, but for the first of the process."""
        return [seconds for _, seconds in self._recent]

    def validated(self, seconds: float) -> None:
        """Learns what a validation costs, for the time left."""
        self._validation_seconds = seconds

    def _mfu(self, tokens: int, seconds: float) -> float:
        return model_flops_utilization(self._recipe.model, tokens, seconds, self._flops)

    def _seconds_left(self, done: int, step_seconds: float) -> float:
        steps, every = self._recipe.train.steps, self._recipe.evaluation.every
        validations = math.ceil(steps / every) - done // every if every else 1
        return (steps - done) * step_seconds + validations * self._validation_seconds


def model_flops_utilization(model: ModelConfig, tokens: int, seconds: float, flops: float) -> float:
    """The model's own FLOPs for `tokens` in `seconds`, over those that the hardware could do (`flops` a second)."""
    return model.flops_per_token() * tokens / seconds / flops if flops > 0 else 0.0
