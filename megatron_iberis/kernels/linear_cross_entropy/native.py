"""The pass over raw logits on a CPU in C++ (csrc/training/softcap.h)."""

from __future__ import annotations

import torch

from megatron_iberis import _C
from megatron_iberis.kernels.arrays import array

NAME = "native"


def softcap_pass(
    logits: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    range_: float,
    padding: int,
    gradient: bool,
    threads: int = 0,
    kernel: str = "",
) -> tuple[torch.Tensor, torch.Tensor]:
    """logits [n, V], fp32 or bf16, targets [n] -> sums of likelihoods [n], and s at the targets [n].

    See `chunked.SoftcapPass`. threads: at most so many, by default torch's: it does not change a bit. kernel: one of
    `_C.softcap_kernels()`, by default the best.
    """
    total, at_target = torch.empty(2, len(logits)).unbind()
    _C.softcap_pass(
        array(logits),
        array(targets),
        softcap,
        range_,
        padding,
        gradient,
        array(total),
        array(at_target),
        threads or torch.get_num_threads(),
        kernel,
    )
    return total, at_target
