"""flash-attention 3 or 4 under torch's own attention, where one of them is installed and fits."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch.nn import attention as torch_attention

FA4_HEADS = (128,)
"""Head sizes whose backward pass every release of flash-attn-4 has."""


def fitting(capability: tuple[int, int], head_size: int) -> list[str]:
    """What is installed and can train heads of that size on such a GPU, the best first."""
    hopper, blackwell = capability[0] == 9, capability[0] == 10
    found = []
    if hopper and _installed("flash_attn_interface"):
        found.append("FA3")
    if (hopper or blackwell) and head_size in FA4_HEADS and _installed("flash_attn.cute"):
        found.append("FA4")
    return found


def take_flash_attention(device: torch.device, head_size: int) -> str | None:
    """Puts the best that fits in the place of torch's kernels, for this process; its name, None where none does.

    One that cannot be loaded is passed over: old flash-attn wheels bring a broken flash_attn.cute along.
    """
    if device.type != "cuda" or not hasattr(torch_attention, "activate_flash_attention_impl"):
        return None
    for name in fitting(torch.cuda.get_device_capability(device), head_size):
        if current() == name:
            return name
        try:
            torch_attention.activate_flash_attention_impl(name)
        except Exception:  # whatever its import raises: torch's own is right as well
            continue
        return name
    return None


def current() -> str | None:
    """What was taken in this process."""
    asked = getattr(torch_attention, "current_flash_attention_impl", None)
    return asked() if asked else None


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except Exception:  # of the package above it
        return False
