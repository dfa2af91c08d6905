"""The prediction beside the facts: once in every training run, when 20 steps are done since its start or resume.

Nobody trusts a plan that was never held against a run, so each run does it: log.jsonl and TensorBoard get the
figures, the console a line. It is worked out at that step and no earlier, so runs that are shorter pay nothing, and
on rank 0 alone, between two steps. Nothing that goes wrong in here may end a run: it becomes a note.
"""

from __future__ import annotations

import statistics
from typing import Protocol

import torch

from megatron_iberis.config import Recipe
from megatron_iberis.hardware.devices import device_of_driver
from megatron_iberis.hardware.measure import memory_bytes
from megatron_iberis.monitor.events import Figures
from megatron_iberis.planner.layouts import own_layout
from megatron_iberis.planner.plan import predict, table_rates
from megatron_iberis.planner.rates import cpu_rates, known_rates
from megatron_iberis.planner.step_time import Rates

STEPS = 20
GROUP = "plan"
"""Of the figures."""


class Told(Protocol):
    """What a monitor does for it."""

    def recent_seconds(self) -> list[float]: ...

    def tell(self, event: Figures) -> None: ...

    def note(self, text: str) -> None: ...


class PlanCheck:
    """Called after each step with the steps done. world: ranks, of which this is rank 0; peak: of one, FLOP/s.

    resident: bytes of this process before the engine was made, which on a CPU are no part of the prediction: the
    interpreter and its libraries.
    """

    def __init__(
        self,
        recipe: Recipe,
        world: int,
        device: torch.device,
        peak: float,
        first_step: int,
        resident: int,
        monitor: Told,
    ) -> None:
        self._recipe, self._world, self._device, self._peak = recipe, world, device, peak
        self._due, self._resident, self._monitor = first_step + STEPS, resident, monitor

    def __call__(self, done: int) -> None:
        if done != self._due:
            return
        try:
            self._tell(done)
        except Exception as error:  # a plan is worth less than the run
            self._monitor.note(f"this run could not be held against a plan: {error}")

    def _tell(self, done: int) -> None:
        layout = own_layout(self._recipe, self._world)
        assert layout
        rates = self._rates()
        predicted = predict(self._recipe, layout, rates)
        memory = predicted.memory.tensors + (0 if rates.gpu else self._resident)
        seconds, took = predicted.time.seconds, statistics.median(self._monitor.recent_seconds())
        used = memory_bytes(self._device)
        figures = {
            "step_seconds_predicted": seconds,
            "step_seconds": took,
            "memory_bytes_predicted": float(memory),
            "memory_bytes": float(used),
        }
        self._monitor.tell(Figures(done, GROUP, figures))
        kind = "calibrated" if rates.calibrated else "uncalibrated: iberis plan --calibrate measures this machine"
        self._monitor.note(
            f"plan and fact: a step {seconds:.3g} s and {took:.3g} s ({_off(took, seconds)}), memory "
            f"{memory / 1e9:.3g} GB and {used / 1e9:.3g} GB ({_off(used, memory)}); {kind}"
        )

    def _rates(self) -> Rates:
        """As measured here; else by the GPU's data sheet, or by the CPU's peak, which every run measures."""
        dtype, gpu = self._recipe.train.dtype, self._device.type == "cuda"
        device = device_of_driver(torch.cuda.get_device_name(self._device)) if gpu else None
        per_node = min(self._world, torch.cuda.device_count()) if gpu else self._world
        known = known_rates(self._device, self._recipe.train, per_node, per_node, device)
        if known:
            return known
        if not gpu:
            return cpu_rates(self._peak, per_node)
        if device is None:
            raise ValueError("this GPU is not in the table of devices: iberis plan --calibrate measures it")
        return table_rates(device, dtype, per_node)


def _off(fact: float, predicted: float) -> str:
    return f"{100 * (fact / predicted - 1):+.0f} %"
