"""Causal attention with rotary embedding and normalised queries and keys.

* Separate q, k, v projections; rotary on q and k, *then* RMS norm a head, then attention scaled by 1/sqrt(D).
* Key-value heads may be fewer than query heads: consecutive query heads share one.

Tensor parallelism splits query heads. Key-value heads are split too where they divide; where there are fewer
of them than ranks, their (small) projections are replicated and each rank takes the heads that its queries need.

Context parallelism splits the tokens into chunks. Where the heads divide, an all-to-all gives each rank whole
sequences for a share of the heads; elsewhere keys and values are gathered, and the last chunks have more to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_iberis.kernels.attention import causal_attention, document_attention
from megatron_iberis.model.documents import Documents
from megatron_iberis.model.linear import column_linear, gather_input, replicated_linear, row_linear
from megatron_iberis.model.rotary import rotate
from megatron_iberis.parallel.context import all_chunks, join_heads, split_heads


@dataclass
class AttentionSubmodules:
    """The layers that attention is built from."""

    linear_q: Any
    linear_k: Any
    linear_v: Any
    linear_proj: Any


class Attention(MegatronModule):
    """Stands in the `self_attention` slot of a megatron-core transformer layer."""

    def __init__(
        self,
        config: TransformerConfig,
        submodules: AttentionSubmodules,
        pg_collection: Any,
        kv_heads: int,
        **_: Any,  # the layer's number, which megatron-core tells every mixer
    ) -> None:
        super().__init__(config=config)
        width, heads = config.hidden_size, config.num_attention_heads
        self.tp, self.cp = pg_collection.tp, pg_collection.cp
        self.head_size = width // heads
        self.share_kv = kv_heads % self.tp.size() != 0
        self.linear_q = column_linear(submodules.linear_q, width, width, config, self.tp)
        kv_linear = replicated_linear if self.share_kv else column_linear
        self.linear_k = kv_linear(submodules.linear_k, width, kv_heads * self.head_size, config, self.tp)
        self.linear_v = kv_linear(submodules.linear_v, width, kv_heads * self.head_size, config, self.tp)
        self.linear_proj = row_linear(submodules.linear_proj, width, width, config, self.tp)

    def forward(
        self,
        hidden_states: torch.Tensor,
        *_: Any,
        rotary_pos_emb: Any = None,
        packed_seq_params: Documents | None = None,
        **__: Any,
    ) -> tuple[torch.Tensor, None]:
        """[T (/TP when sequence-parallel), B, E] -> the same shape, and no bias. T is this rank's chunk.

        rotary_pos_emb: (cos, sin) of the chunk's positions, each fp32 [T, 1, 1, D/2]. packed_seq_params: documents
        that are not to attend to each other; by default each row is one.
        """
        h = gather_input(hidden_states, self.config.sequence_parallel, self.tp)  # [T, B, E]
        q, k, v = (self._heads(layer(h)[0]) for layer in (self.linear_q, self.linear_k, self.linear_v))
        if self.share_kv:
            k, v = self._own_kv(k), self._own_kv(v)
        cos, sin = rotary_pos_emb
        q, k = (self._norm(rotate(x, cos, sin)).to(v.dtype) for x in (q, k))
        y = self._attend(q, k, v, packed_seq_params)  # [T, B, H/TP, D]
        return self.linear_proj(y.flatten(-2))

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, documents: Documents | None) -> torch.Tensor:
        """Attention of this rank's chunk to all tokens up to it: q [T, B, H/TP, D] -> the same."""
        size, rank = self.cp.size(), self.cp.rank()
        if size == 1:
            return _attention(q, k, v, documents)
        if q.shape[2] % size == 0 and k.shape[2] % size == 0:  # whole sequences for a share of the heads
            q, k, v = (split_heads(x, self.cp) for x in (q, k, v))
            return join_heads(_attention(q, k, v, documents), self.cp)
        end = (rank + 1) * q.shape[0]
        k, v = (all_chunks(x, self.cp)[:end] for x in (k, v))
        return _attention(q, k, v, documents)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self.head_size))  # [T, B, heads, D]

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (self.head_size,), eps=self.config.layernorm_epsilon)

    def _own_kv(self, x: torch.Tensor) -> torch.Tensor:
        """All key-value heads [T, B, KV, D] -> one for each of this rank's query heads [T, B, H/TP, D]."""
        heads = self.config.num_attention_heads
        local, rank = heads // self.tp.size(), self.tp.rank()
        wanted = torch.arange(rank * local, (rank + 1) * local, device=x.device) // (heads // x.shape[2])
        return x.index_select(2, wanted)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, documents: Documents | None) -> torch.Tensor:
    """Of the last queries to keys and values from the rows' beginning on: q [T, B, H, D], k and v [S, B, KV, D]."""
    return causal_attention(q, k, v) if documents is None else _inside_documents(q, k, v, documents)


@torch.compiler.disable  # a graph would hold for these lengths alone
def _inside_documents(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, documents: Documents) -> torch.Tensor:
    return document_attention(q, k, v, documents.until(k.shape[0]))
