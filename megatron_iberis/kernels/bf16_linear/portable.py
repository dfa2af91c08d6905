"""The product by torch, wherever it runs."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F

from megatron_iberis.kernels.cpu_threads import usable_cpus

NAME = "portable"
_LARGE = 1 << 26  # multiplications that are worth a second thread's while


def bf16_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x: [N, I]; weight: [O, I] -> [N, O].

    A large product on a CPU takes all threads that this process may use, also where torch has been given one only
    (`inference.load.set_threads`), as is best for everything else that decoding does.
    """
    given = torch.get_num_threads()
    if not x.is_cpu or x.shape[0] * weight.numel() < _LARGE or given >= _threads():
        return F.linear(x, weight)
    torch.set_num_threads(_threads())
    try:
        return F.linear(x, weight)
    finally:
        torch.set_num_threads(given)


@cache
def _threads() -> int:
    return usable_cpus()
