"""How long a step takes: a roofline over its operations, from data sheets or from what was measured here.

Each product has a rate by its shape, attention one of its own, everything else is bound by the memory's bandwidth,
and every operation has to be started: by the host, which on a GPU goes on beside it, on a CPU not. Messages wait for
each other and for the work, as DeepSpeed's do at stages 0 to 2 (`overlap_comm` is off there unless it is asked for);
at stage 3 half of them may hide behind the work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from megatron_iberis.config import Recipe
from megatron_iberis.planner.layouts import Layout
from megatron_iberis.planner.links import Traffic, Wires, traffic_of
from megatron_iberis.planner.parameters import heaviest_owner, parameters_of
from megatron_iberis.planner.work import Part, Parts, Shape, Work
from megatron_iberis.training.newton_schulz import precision, products

UNCALIBRATED = (0.75, 1.5)
CALIBRATED = (0.8, 1.25)
"""The range of a prediction, as factors: without measurements other planners were between -22 and +54 % off."""

# Shares of a data sheet's peaks. Products: 606 to 726 of 989 TFLOP/s at K = 1664 in bf16 on an H100 (nanochat's
# log); attention by FlashAttention 2 on an H100: 350 to 400; memory 2.8 of 3.35 TB/s.
PRODUCT_SHARE, HALF_SHARE_AT = 0.75, 150
ATTENTION_SHARE = 0.38
BANDWIDTH_SHARE = 0.84
LINK_SHARE = 0.8
GPU_START, CPU_START = 7e-6, 5e-6
"""Seconds of starting an operation."""
HOOKS = (20e-6, 20e-6, 60e-6, 300e-6)
"""Seconds of the host for each parameter in a micro-batch, by ZeRO stage: gradients added up, put into buckets, and
at stage 3 parameters fetched and dropped twice. Rules of thumb: none was measured."""


@dataclass(frozen=True)
class Rates:
    """What a rank's device does in a second, in the recipe's precision."""

    peak: float
    """FLOP/s, of which MFU is a share."""
    bandwidth: float
    wires: Wires
    gpu: bool
    products: Mapping[Shape, float] = field(default_factory=dict)
    """Measured FLOP/s by shape."""
    attention: float = 0.0
    """Measured FLOP/s; 0: by the data sheet."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """By kind of part: how much longer than their bytes say its other operations take."""
    calibrated: bool = False
    per_node: int = 8

    def product_seconds(self, shape: Shape) -> float:
        """Of one product: at the rate of the measured shape that is nearest, or by its smallest side."""
        m, n, k = shape
        if self.products:
            nearest = min(self.products, key=lambda known: _distance(known, shape))
            return 2.0 * m * n * k / self.products[nearest]
        smallest = min(shape)
        share = PRODUCT_SHARE * smallest / (smallest + HALF_SHARE_AT)
        return 2.0 * m * n * k / (self.peak * share)

    def seconds(self, work: Work, factor: float = 1.0) -> float:
        """Of work that one rank does; factor: for its bytes."""
        products = sum(count * self.product_seconds(shape) for shape, count in work.products)
        attention = work.attention_flops / (self.attention or ATTENTION_SHARE * self.peak)
        other = work.bytes / self.bandwidth * factor
        started = work.operations * (GPU_START if self.gpu else CPU_START)
        if self.gpu:
            return products + attention + other  # whether the host keeps up is seen over the whole micro-batch
        return products + attention + other + (0.0 if self.factors else started)


def _distance(a: Shape, b: Shape) -> float:
    return sum(abs(math.log(x / y)) for x, y in zip(a, b, strict=True))


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by what they go into."""

    layers: float
    head: float
    optimizer: float
    """Newton-Schulz, AdamW, and what DeepSpeed copies."""
    traffic: Traffic
    host: float = 0.0
    """By which the host is slower than its GPU."""
    hidden: float = 0.0
    """Of messages, those behind the work."""

    @property
    def messages(self) -> float:
        return self.traffic.seconds - self.hidden

    @property
    def seconds(self) -> float:
        return self.layers + self.head + self.optimizer + self.messages + self.host


def step_time(recipe: Recipe, layout: Layout, parts: Parts, counts: Mapping[str, int], rates: Rates) -> StepTime:
    """Of the recipe at the layout. counts: layers of each kind."""

    def of(name: str, part: Part) -> float:
        return rates.seconds(part.work, rates.factors.get(name, 1.0)) * layout.accumulation

    layers = sum(of(kind, parts.layers[kind]) * count for kind, count in counts.items())
    layers += of("embedding", parts.embedding)
    head = of("head", parts.head)
    work = parts.total(counts)
    traffic = traffic_of(recipe, layout, work, rates.wires, rates.per_node)
    hidden = min(traffic.seconds / 2, (layers + head) / 2) if layout.zero_stage == 3 else 0.0
    host = 0.0
    if rates.gpu:
        hooks = HOOKS[layout.zero_stage] * len(parameters_of(recipe.model, layout.tp))
        host = max(0.0, (GPU_START * work.operations + hooks) * layout.accumulation - layers - head)
    return StepTime(layers, head, optimizer_seconds(recipe, layout, rates), traffic, host, hidden)


def optimizer_seconds(recipe: Recipe, layout: Layout, rates: Rates) -> float:
    """Of what is done once a step, and of DeepSpeed's copies of gradients."""
    parameters = parameters_of(recipe.model, layout.tp)
    replicas = layout.dp * layout.cp if layout.zero_stage else 1
    total = sum(p.numel for p in parameters)
    matrices = sum(p.numel for p in parameters if p.group == "matrix")
    config = recipe.optimizer
    muon = config.kind == "muon"
    held = {"muon": matrices / replicas if muon else 0.0}
    held["adamw"] = total / replicas - held["muon"]
    # Momentum, Nesterov, the messages' casts, the update: 16 passes of 4 bytes; AdamW: 7.
    work = Work(bytes=64 * held["muon"] + 28 * held["adamw"] + _copies(layout) * total)
    if muon:
        size = 2 if config.newton_schulz_dtype == "bf16" else 4
        for shape in heaviest_owner(parameters, layout.world, config).shapes:
            for (m, n, k), count in products(shape, config.newton_schulz_steps, precision(config)):
                work.products.append(((m, n, k), count))
                work.bytes += count * size * 3.0 * m * n
    return rates.seconds(work)


def _copies(layout: Layout) -> float:
    """Bytes for each parameter that DeepSpeed reads and writes in a step: sums of gradients, flattened buckets, norm
    and clip, weights back."""
    times, replicas = layout.accumulation, layout.dp * layout.cp
    if layout.zero_stage == 0:
        return 12 * (times - 1) + 16 + 12
    if layout.zero_stage == 1:
        return 18 * times + 24 + 6 / replicas
    if layout.zero_stage == 2:
        return 24 * times + 20 / replicas
    return (24 + (8 if replicas > 1 else 0)) * times + 20 / replicas
