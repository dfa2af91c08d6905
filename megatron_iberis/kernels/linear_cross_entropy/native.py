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
    total, at_target = _softcap_pass(logits, targets, softcap, range_, padding, gradient, threads, kernel)
    return total, at_target


# An operator of torch's, so that fake tensors go through it and a compiled graph can hold it.
@torch.library.custom_op("iberis::softcap_pass", mutates_args=("logits",), device_types="cpu")
def _softcap_pass(
    logits: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    range_: float,
    padding: int,
    gradient: bool,
    threads: int,
    kernel: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    total, at_target = torch.empty(len(logits)), torch.empty(len(logits))
    results = array(total), array(at_target)
    threads = threads or torch.get_num_threads()
    _C.softcap_pass(array(logits), array(targets), softcap, range_, padding, gradient, *results, threads, kernel)
    return total, at_target


@_softcap_pass.register_fake
def _(logits: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    rows = logits.new_empty(len(logits), dtype=torch.float32)
    return rows, torch.empty_like(rows)
