"""SLC2, the gated short convolution that takes attention's place in two layers of three.

* Four projections of the input: x (E), alpha (one a head), A (E/H, shared by all heads), B (E).
* gate = SiLU(SiLU(alpha) (x) A), the outer product head by head; u = gate * x.
* z = causal depthwise convolution of u with K taps; y = B * SiLU(z).
* Optionally RMS norm of y over all E channels; then the output projection.

Tensor parallelism splits by heads: x, B, the convolution's channels and y by E, alpha by H; A is replicated.
Context parallelism splits the tokens: only the convolution looks across the border, K-1 tokens back.
Source: Liquid_Time_nanochat, gpt.py (the code that runs, not its README).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import nn

from megatron_iberis.kernels.short_convolution import gated_short_convolution
from megatron_iberis.model.documents import Documents
from megatron_iberis.model.linear import column_linear, gather_input, replicated_linear, row_linear
from megatron_iberis.model.norm import split_rms_norm
from megatron_iberis.model.parameters import place
from megatron_iberis.parallel.context import tail_of_previous


@dataclass
class SLC2Submodules:
    """The layers that SLC2 is built from."""

    linear_x: Any
    linear_alpha: Any
    linear_a: Any
    linear_b: Any
    linear_proj: Any


class ShortConvolution(nn.Module):
    """The gates around a depthwise causal convolution, whose taps it holds, [E / TP, 1, K].

    Under context parallelism it begins with the last K-1 steps of the chunk before. norm_eps: see
    `gated_short_convolution`.
    """

    def __init__(
        self, channels: int, kernel: int, dtype: torch.dtype, tp: Any, cp: Any, norm_eps: float | None = None
    ) -> None:
        super().__init__()
        self.norm_eps = norm_eps
        self.weight = nn.Parameter(torch.empty(channels // tp.size(), 1, kernel, dtype=dtype))
        place(self.weight, "convolution", tp, dim=0)
        self.before = None
        if cp.size() > 1 and kernel > 1:
            self.before = partial(tail_of_previous, length=kernel - 1, group=cp)

    def forward(
        self,
        x: torch.Tensor,
        alpha: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        documents: Documents | None = None,
    ) -> torch.Tensor:
        """As `gated_short_convolution`; given documents, none of which looks into another."""
        positions = documents.positions if documents else None
        return gated_short_convolution(x, alpha, a, b, self.weight, self.before, positions, norm_eps=self.norm_eps)


class SLC2(MegatronModule):
    """Stands in the `self_attention` slot of a megatron-core transformer layer."""

    def __init__(
        self,
        config: TransformerConfig,
        submodules: SLC2Submodules,
        pg_collection: Any,
        kernel: int,
        inner_norm: bool,
        **_: Any,  # the layer's number, which megatron-core tells every mixer
    ) -> None:
        super().__init__(config=config)
        width, heads, group = config.hidden_size, config.num_attention_heads, pg_collection.tp
        self.group = group
        self.split_norm = inner_norm and group.size() > 1  # no rank alone knows the norm
        norm_eps = config.layernorm_epsilon if inner_norm and not self.split_norm else None
        self.linear_x = column_linear(submodules.linear_x, width, width, config, group)
        self.linear_alpha = column_linear(submodules.linear_alpha, width, heads, config, group)
        self.linear_a = replicated_linear(submodules.linear_a, width, width // heads, config, group)
        self.linear_b = column_linear(submodules.linear_b, width, width, config, group)
        self.conv = ShortConvolution(width, kernel, config.params_dtype, group, pg_collection.cp, norm_eps)
        self.linear_proj = row_linear(submodules.linear_proj, width, width, config, group)

    def forward(
        self, hidden_states: torch.Tensor, *_: Any, packed_seq_params: Documents | None = None, **__: Any
    ) -> tuple[torch.Tensor, None]:
        """[T (/TP when sequence-parallel), B, E], T this rank's chunk, -> the same shape, and no bias."""
        h = gather_input(hidden_states, self.config.sequence_parallel, self.group)  # [T, B, E]
        x, _bias = self.linear_x(h)  # [T, B, E/TP]
        alpha, _bias = self.linear_alpha(h)  # [T, B, H/TP]
        a, _bias = self.linear_a(h)  # [T, B, E/H]
        b, _bias = self.linear_b(h)  # [T, B, E/TP]
        y = self.conv(x, alpha, a, b, packed_seq_params)  # [T, B, E/TP]
        if self.split_norm:
            y = split_rms_norm(y, self.config.hidden_size, self.config.layernorm_epsilon, self.group)
        return self.linear_proj(y)
