"""Section machine: what is here."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from benchmarks.gpu.record import Record
from benchmarks.gpu.scale import Scale

PACKAGES = ("torch", "deepspeed", "megatron-core", "numpy")


def run(scale: Scale, record: Record) -> None:
    """Names GPUs, their memory, and versions; `gpus` is empty where there is none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_properties(i) for i in range(count)]
    record.figures(
        gpus=[{"name": gpu.name, "gigabytes": round(gpu.total_memory / 1e9, 1)} for gpu in gpus],
        python=platform.python_version(),
        cuda=torch.version.cuda,
        **{name: version(name) for name in PACKAGES},
    )
