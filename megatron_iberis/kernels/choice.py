"""Which implementation each operation of training takes on a device, to be said once at the start of a run."""

from __future__ import annotations

from megatron_iberis.kernels import attention, linear_cross_entropy, short_convolution
from megatron_iberis.kernels.attention.flash import current


def kernels_line(device: str) -> str:
    """In a line: "kernels: attention sdpa, convolution native, loss native". device: a type, as "cpu"."""
    operations = {
        "attention": attention.implementation,
        "convolution": short_convolution.implementation(device),
        "loss": linear_cross_entropy.implementation(device),
    }
    flash = current() if device == "cuda" else None
    names = {name: each.NAME for name, each in operations.items()}
    if flash:
        names["attention"] += f" ({flash})"
    return "kernels: " + ", ".join(f"{name} {each}" for name, each in names.items())
