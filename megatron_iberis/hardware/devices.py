"""What a plan needs to know of a machine beside its peak: memory, its bandwidth, and the links between GPUs.

From NVIDIA's data sheets, as peaks.py has its figures: memory in GB of 10^9 bytes, its bandwidth in TB/s, NVLink in
GB/s of one direction (data sheets give the sum of both), and without NVLink PCIe's 16 lanes (generation 4: 32, 5: 64
GB/s). Between nodes: what the vendors' own servers have for each GPU, an adapter of 400 Gb/s beside an H100, H200 or
B200 (DGX and HGX reference architectures), 200 Gb/s beside an A100; for cards that stand in servers of all kinds one
adapter of 100 Gb/s for each GPU is assumed, which is generous.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_iberis.errors import InputError
from megatron_iberis.hardware.peaks import known_gpu_flops

_ADAPTER_400, _ADAPTER_200, _ADAPTER_100 = 50e9, 25e9, 12.5e9


@dataclass(frozen=True)
class Device:
    """A kind of GPU in its usual server, or the CPU of this machine. Bytes, bytes a second, FLOP/s."""

    name: str
    driver_name: str
    """As the driver calls it, by which peaks.py knows it."""
    memory: float
    bandwidth: float
    """Of its memory."""
    link: float
    """To the other GPUs of the node, one direction."""
    adapter: float
    """Each GPU's share of the node's network, one direction."""
    per_node: int = 8

    @property
    def is_gpu(self) -> bool:
        return self.name != CPU

    def peak(self, dtype: str) -> float:
        """Dense FLOP/s in "bf16" or "fp32"; 0 where only a measurement tells."""
        return known_gpu_flops(self.driver_name, dtype) or 0.0


CPU = "cpu"
DEVICES: tuple[Device, ...] = (
    Device("h100", "NVIDIA H100 80GB HBM3", 80e9, 3.35e12, 450e9, _ADAPTER_400),
    Device("h100-pcie", "NVIDIA H100 PCIe", 80e9, 2.0e12, 64e9, _ADAPTER_100),
    Device("h200", "NVIDIA H200", 141e9, 4.8e12, 450e9, _ADAPTER_400),
    Device("b200", "NVIDIA B200", 180e9, 7.7e12, 900e9, _ADAPTER_400),
    Device("a100", "NVIDIA A100-SXM4-80GB", 80e9, 2.039e12, 300e9, _ADAPTER_200),
    Device("a100-40", "NVIDIA A100-SXM4-40GB", 40e9, 1.555e12, 300e9, _ADAPTER_200),
    Device("l40s", "NVIDIA L40S", 48e9, 0.864e12, 32e9, _ADAPTER_100),
    Device("a6000", "NVIDIA RTX A6000", 48e9, 0.768e12, 32e9, _ADAPTER_100),
    Device("5090", "NVIDIA GeForce RTX 5090", 32e9, 1.792e12, 64e9, _ADAPTER_100),
    Device("4090", "NVIDIA GeForce RTX 4090", 24e9, 1.008e12, 32e9, _ADAPTER_100),
    Device("3090", "NVIDIA GeForce RTX 3090", 24e9, 0.936e12, 32e9, _ADAPTER_100),
)


def known_device(name: str) -> Device:
    """The GPU of that name. Raises InputError with the names that there are."""
    for device in DEVICES:
        if device.name == name.lower():
            return device
    names = ", ".join(device.name for device in DEVICES)
    raise InputError(f"there is no device '{name}' in the table: use one of {names}, or cpu.")


def device_of_driver(name: str) -> Device | None:
    """The GPU that the driver calls `name`, as far as the table has it."""
    peak = known_gpu_flops(name, "bf16")
    same = [device for device in DEVICES if peak and device.peak("bf16") == peak]
    for device in same:
        if device.driver_name.upper().split()[1].split("-")[0] in name.upper() and _memory_fits(device, name):
            return device
    return None


def _memory_fits(device: Device, name: str) -> bool:
    """Whether a size that the driver's name tells ("40GB") is the device's."""
    sizes = [word.removesuffix("GB") for word in name.upper().replace("-", " ").split() if word.endswith("GB")]
    return not sizes or not sizes[0].isdecimal() or int(sizes[0]) * 1e9 == device.memory
