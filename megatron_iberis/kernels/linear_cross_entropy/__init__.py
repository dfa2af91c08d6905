"""Output head and soft-capped cross entropy in one, without ever holding all logits.

* `linear_cross_entropy`: the summed loss, its gradient worked out in the same pass.
* `token_log_likelihoods`: one number a token, for losses whose factors are known only after the forward pass.
* `softcapped_logits`: the logits themselves, for those who want them.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch.distributed import ProcessGroup

from megatron_iberis.kernels.linear_cross_entropy import chunked, native, portable
from megatron_iberis.kernels.triton_found import has_triton


def implementation(device: str, dtype: torch.dtype = torch.float32) -> ModuleType:
    """What makes the pass over the logits there; device: a type, as "cpu"."""
    if dtype not in (torch.float32, torch.bfloat16):
        return portable
    if device == "cuda" and has_triton():
        from megatron_iberis.kernels.linear_cross_entropy import triton  # not to be imported where there is none

        return triton
    return native if device == "cpu" else portable


def softcapped_logits(hidden: torch.Tensor, weight: torch.Tensor, softcap: float) -> torch.Tensor:
    """softcap * tanh(hidden weight' / softcap) in fp32. hidden: [..., E], weight: [V, E] -> [..., V]."""
    return chunked.softcapped_logits(hidden, weight, softcap)


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    vocab_start: int = 0,
    padding: int = 0,
    group: ProcessGroup | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Summed negative log likelihood of the targets, in nats: an fp32 scalar, the same on all ranks of `group`.

    hidden: [N, E], the same on all ranks; weight: [V_local, E], this rank's rows of the head, as many on every
    rank, the last `padding` of them no tokens; targets: [N] global ids, -1 is ignored; vocab_start: the global id
    of weight's first row; weights: what each token counts, fp32 [N], constants; 1 by default.
    The gradient for `hidden` is this rank's part: whoever made `hidden` sums it over the group.
    """
    softcap_pass = implementation(hidden.device.type, hidden.dtype).softcap_pass
    return chunked.linear_cross_entropy(
        softcap_pass, hidden, weight, targets, softcap, vocab_start, padding, group, weights
    )


def token_log_likelihoods(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float,
    vocab_start: int = 0,
    padding: int = 0,
    group: ProcessGroup | None = None,
    temperature: float = 1.0,
) -> torch.Tensor:
    """The log likelihood of each target, in nats: fp32 [N], 0 for ignored ones, the same on all ranks of `group`.

    Arguments and gradients are those of `linear_cross_entropy`; the ranks of the group are to give the result the
    same gradient. temperature: divides the capped logits; 2 softcap / temperature must be below 88.
    """
    softcap_pass = implementation(hidden.device.type, hidden.dtype).softcap_pass
    return chunked.token_log_likelihoods(
        softcap_pass, hidden, weight, targets, softcap, vocab_start, padding, group, temperature
    )
