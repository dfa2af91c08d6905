"""What can be told of a run: each recorder (console, log, TensorBoard) takes these events.

`step` counts the steps done, so the first is 1. Whatever new figure a stage has is told as `Figures`, which every
recorder shows without knowing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

TRAIN = "train"
"""The group of figures that belong to every step."""


@dataclass(frozen=True)
class Step:
    """A step with everything that follows from it. None: not known yet (the first step only warms up)."""

    step: int
    loss: float
    """Mean nats a token over the whole batch, all ranks."""
    loss_smooth: float
    """Exponential mean of the losses so far, without the bias of its start."""
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
    skipped: bool
    """Whether loss or gradient were not finite, so that nothing was updated."""
    tokens_per_second: float
    mfu: float
    """Model FLOPs utilization of this step, from 0 to 1."""
    memory_bytes: int
    """Peak use of rank 0."""
    skipped_steps: int
    """Steps of the run so far that were skipped."""
    warm: bool
    """Whether the step's speed is typical: not the first one of a process."""
    recent_tokens_per_second: float | None
    recent_mfu: float | None
    seconds_left: float | None
    loss_spike: float | None
    """By how many deviations the loss is above its running mean, where that is extraordinary."""


@dataclass(frozen=True)
class Validation:
    """The loss on held-out text: bits a byte of text, nats a token. seconds: its wall clock."""

    step: int
    bits_per_byte: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class SampleText:
    """What a model wrote, and what it was given."""

    prompt: str
    continuation: str


@dataclass(frozen=True)
class Samples:
    """Texts that the model wrote."""

    step: int
    samples: tuple[SampleText, ...]


@dataclass(frozen=True)
class Note:
    """Something that happened, in a line."""

    step: int
    text: str


@dataclass(frozen=True)
class Figures:
    """Any figures by name, of a group that says what they are about: "train" for those of a step, "core", ..."""

    step: int
    group: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Start:
    """A process began, or went on with, the run: log.jsonl has one of these for each, after `step` steps."""

    step: int
    opening: Mapping[str, str]
    """The lines that the console shows at the start, by name."""
    machine: Mapping[str, str | int | float]
    """What it runs on (hardware/machine.py), and on how many ranks."""


Event: TypeAlias = Step | Validation | Samples | Note | Figures | Start
