"""`iberis doctor`: what is installed here, and what training will run on."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("megatron_iberis", "torch", "megatron-core", "deepspeed", "sentencepiece", "numpy", "safetensors")


def examine() -> list[tuple[str, str]]:
    """(what, finding) pairs, to be printed one a line."""
    rows = [("python", platform.python_version()), ("machine", f"{os.cpu_count()} CPUs, {platform.machine()}")]
    rows += [(name, _version(name)) for name in PACKAGES]
    rows.append(("deepspeed command", shutil.which("deepspeed") or _NO_COMMAND))
    rows += _devices()
    return rows


_NO_COMMAND = "not on the PATH: activate the environment that megatron_iberis is installed in"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return f"missing: pip install {name}"


def _devices() -> list[tuple[str, str]]:
    import torch

    if not torch.cuda.is_available():
        return [("device", f"CPU with {torch.get_num_threads()} threads; collectives: gloo")]
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [("device", f"{len(names)} x {names[0]}, CUDA {torch.version.cuda}; collectives: NCCL")]
