"""Which implementation each operation takes in this process, to be said once at the start of a run."""

from __future__ import annotations

from megatron_iberis.kernels import attention, linear_cross_entropy, short_convolution


def kernels_line() -> str:
    """In a line: "kernels: attention sdpa, convolution portable, loss portable"."""
    operations = {"attention": attention, "convolution": short_convolution, "loss": linear_cross_entropy}
    return "kernels: " + ", ".join(f"{name} {each.implementation.NAME}" for name, each in operations.items())
