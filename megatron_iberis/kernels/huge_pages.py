"""Weights, keys and values in memory of huge pages, for reading them is what decoding on a CPU waits for.

Each page of 4 KB costs a walk of the page tables, in a virtual machine of two: measured there, reading runs at half
the speed. torch asks for no huge pages; numpy does, for arrays of 4 MB and more, so what is smaller shares one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import torch

_CHUNK = 1 << 26
_ALIGNED = 64  # bytes: a line of the cache


class _Arena:
    """Hands out parts of large arrays, each of which lives until the last of its parts is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = torch.empty(0, dtype=torch.uint8)

    def take(self, nbytes: int) -> torch.Tensor:
        """uint8 [nbytes], at the start of a cache line."""
        rounded = -(-nbytes // _ALIGNED) * _ALIGNED
        if rounded > _CHUNK // 4:
            return _large_array(rounded)[:nbytes]
        with self._lock:
            if rounded > self._left.numel():
                self._left = _large_array(_CHUNK)
            taken, self._left = self._left[:nbytes], self._left[rounded:]
        return taken


def _large_array(nbytes: int) -> torch.Tensor:
    array = np.empty(nbytes + _ALIGNED, dtype=np.uint8)
    start = -array.ctypes.data % _ALIGNED
    return torch.from_numpy(array[start : start + nbytes])


_arena = _Arena()


def on_huge_pages(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy there; a tensor of another device as it is, but contiguous."""
    if tensor.device.type != "cpu":
        return tensor.contiguous()
    place = _arena.take(tensor.nbytes).view(tensor.dtype).view(tensor.shape)
    return place.copy_(tensor)


def empty_on_huge_pages(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """A tensor there, whose pages take no room before they are written to; on another device an ordinary one."""
    if torch.device(device).type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return _large_array(math.prod(shape) * dtype.itemsize).view(dtype).view(shape)
