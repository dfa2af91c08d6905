"""The rates that a plan reckons with: measured ones where this machine was calibrated, else a table's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron_iberis.config import Recipe, TrainConfig
from megatron_iberis.errors import InputError
from megatron_iberis.hardware.devices import CPU, Device, device_of_driver
from megatron_iberis.planner.links import Wires
from megatron_iberis.planner.plan import table_rates
from megatron_iberis.planner.step_time import Rates

if TYPE_CHECKING:
    import torch

GLOO = Wires(1.5e9, 1e9, 300e-6, 300e-6)
"""Between processes of one machine, until it is calibrated."""
CPU_BANDWIDTH = 12e9
"""Bytes a second of a laptop's or a virtual machine's memory, until it is calibrated."""


def rates_for(recipe: Recipe, device: Device, gpus: int, per_node: int, calibrate: bool) -> Rates:
    """For a plan. calibrate: measure first. Raises InputError where the device is not this machine's."""
    import torch

    here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_here = device.name == CPU or (here.type == "cuda" and _same(device, torch.cuda.get_device_name(0)))
    here = torch.device("cpu") if device.name == CPU else here
    if calibrate and not is_here:
        raise InputError(f"--calibrate measures this machine, which has no {device.name}: leave it out or run there.")
    ranks = min(gpus, torch.cuda.device_count()) if here.type == "cuda" else gpus
    if calibrate:
        from megatron_iberis.planner.calibration import calibrate as measured
        from megatron_iberis.planner.calibration import save_calibration

        name, found = measured(recipe, here, ranks)
        print(f"measured: {save_calibration(name, found)}")
    known = known_rates(here, recipe.train, ranks, per_node, device) if is_here else None
    if known:
        return known
    if device.name != CPU:
        return table_rates(device, recipe.train.dtype, per_node)
    from megatron_iberis.hardware.measure import peak_flops

    return cpu_rates(peak_flops(here, recipe.train.dtype).flops / gpus, per_node)


def cpu_rates(peak: float, per_node: int) -> Rates:
    """Of a CPU of which only the peak was measured."""
    return Rates(peak, CPU_BANDWIDTH, GLOO, gpu=False, per_node=per_node)


def known_rates(
    here: torch.device, train: TrainConfig, ranks: int, per_node: int, device: Device | None = None
) -> Rates | None:
    """What was measured on this machine with so many ranks; None where nothing was."""
    from megatron_iberis.planner.calibration import load_calibration, machine_name

    found = load_calibration(machine_name(here, ranks))
    wires = table_rates(device, train.dtype, per_node).wires if device and device.name != CPU else GLOO
    return found.rates(train.dtype, here.type == "cuda", per_node, wires, train.compile) if found else None


def _same(device: Device, name: str) -> bool:
    return device_of_driver(name) == device
