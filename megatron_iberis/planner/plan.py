"""All layouts of a recipe on a number of GPUs, each with its memory and time, the best first, and what it costs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from megatron_iberis.config import Recipe
from megatron_iberis.errors import InputError
from megatron_iberis.hardware.devices import CPU, Device, known_device
from megatron_iberis.planner.layouts import Layout, layouts_of, own_layout, recipe_at
from megatron_iberis.planner.links import Wires, spread_of
from megatron_iberis.planner.memory import FITS_BELOW, Memory, memory_of
from megatron_iberis.planner.states import states_of
from megatron_iberis.planner.step_time import (
    BANDWIDTH_SHARE,
    CALIBRATED,
    LINK_SHARE,
    UNCALIBRATED,
    Rates,
    StepTime,
    step_time,
)
from megatron_iberis.planner.work import Parts

CLOSE, CLOSE_CALIBRATED = 1.15, 1.03
"""Layouts as close as this in time are equally fast, as far as a plan can tell: the simplest of them is advised."""


@dataclass(frozen=True)
class Prediction:
    """A layout, and what a rank of it is predicted to need."""

    layout: Layout
    memory: Memory
    overhead: float
    """Bytes beside the tensors, on a GPU."""
    time: StepTime

    @property
    def bytes(self) -> float:
        return self.memory.tensors + self.overhead


@dataclass(frozen=True)
class Plan:
    """What `iberis plan` tells. room: bytes of a rank's device."""

    recipe: Recipe
    gpus: int
    device: Device
    room: float
    rates: Rates
    predictions: tuple[Prediction, ...]
    """Those that fit first, by time."""
    own: Prediction | None
    """The recipe's own layout."""

    def fits(self, prediction: Prediction) -> bool:
        """Whether it needs less than is safe."""
        return prediction.bytes < FITS_BELOW * self.room

    @property
    def advised(self) -> Prediction | None:
        """The simplest of the fastest that fit; None where none does."""
        fitting = [p for p in self.predictions if self.fits(p)]
        if not fitting:
            return None
        longest = fitting[0].time.seconds * (CLOSE_CALIBRATED if self.rates.calibrated else CLOSE)
        return min((p for p in fitting if p.time.seconds <= longest), key=_complexity)

    @property
    def range(self) -> tuple[float, float]:
        """Factors between which a step's time is expected."""
        return CALIBRATED if self.rates.calibrated else UNCALIBRATED

    def mfu(self, seconds: float) -> float:
        """Model FLOPs utilization of steps that take so long."""
        train, peak = self.recipe.train, self.rates.peak * self.gpus
        return self.recipe.model.flops_per_token() * train.batch_tokens / seconds / peak

    def hours(self, seconds: float) -> float:
        """Of the recipe's horizon, steps alone."""
        return self.recipe.train.steps * seconds / 3600


def _complexity(prediction: Prediction) -> tuple[float, ...]:
    layout = prediction.layout
    return layout.recompute, layout.tp * layout.cp, layout.zero_stage, prediction.time.seconds


def make_plan(recipe: Recipe, gpus: int, device: Device, rates: Rates, room: float) -> Plan:
    """Predicts every layout. Raises InputError where there is none, or the recipe has what is not predicted."""
    if recipe.deepspeed.get("zero_optimization", {}).get("offload_optimizer"):
        raise InputError("iberis plan knows nothing of offloading: leave deepspeed.zero_optimization.offload_* out.")
    layouts = layouts_of(recipe, gpus, rates.per_node)
    found = [predict(recipe, layout, rates) for layout in layouts]
    found.sort(key=lambda p: (p.bytes >= FITS_BELOW * room, p.time.seconds))
    own = own_layout(recipe, gpus)
    return Plan(recipe, gpus, device, room, rates, tuple(found), next((p for p in found if p.layout == own), None))


def predict(recipe: Recipe, layout: Layout, rates: Rates) -> Prediction:
    """Memory and time of one layout."""
    from megatron_iberis.planner.layers import kinds_of

    at = recipe_at(recipe, layout)
    parts, memory, overhead = predict_memory(at, layout, rates.gpu)
    return Prediction(layout, memory, overhead, step_time(at, layout, parts, kinds_of(at.model), rates))


def predict_memory(at: Recipe, layout: Layout, gpu: bool) -> tuple[Parts, Memory, float]:
    """What the parts of the recipe at that layout take, the memory of a rank, and the bytes beside the tensors."""
    from megatron_iberis.planner.layers import Case, parts_of

    case = Case(
        at.model,
        at.train.dtype,
        layout.rows,
        layout.tp,
        layout.cp,
        layout.sequence_parallel,
        layout.recompute,
        gpu,
        at.train.compile and layout.zero_stage < 3,  # which cannot be compiled (config/recipe.py)
    )
    parts = parts_of(case)
    memory = memory_of(at.model, states_of(at, spread_of(layout, gpu)), parts, layout.tp)
    groups = sum(size > 1 for size in (layout.tp, layout.cp, layout.dp, layout.world))
    return parts, memory, memory.overhead(groups) if gpu else 0.0


def table_rates(device: Device, dtype: str, per_node: int) -> Rates:
    """Of a GPU by its data sheet."""
    wires = Wires(LINK_SHARE * device.link, LINK_SHARE * device.adapter, 10e-6, 15e-6)
    return Rates(device.peak(dtype), BANDWIDTH_SHARE * device.bandwidth, wires, True, per_node=per_node)


def this_cpu() -> Device:
    """This machine, whose figures are measured."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Device(CPU, "", memory, 0.0, 0.0, 0.0, per_node=os.cpu_count() or 1)


def device_named(name: str) -> Device:
    """A GPU of the table, or "cpu"."""
    return this_cpu() if name == CPU else known_device(name)
