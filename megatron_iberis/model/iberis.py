"""Saint Iberis: embedding -> norm -> blocks -> norm -> head (untied) -> soft cap.

* Blocks: x += mixer(norm(x)); x += mlp(norm(x)). The mixer is SLC2, or attention in every `slc_rate`-th and the
  last layer. MLP: relu squared. RMS norms without weights, no biases, no dropout, no positions but rotary ones.
* Tensor parallelism splits heads, MLP channels and vocabulary; sequence parallelism what is left between; context
  parallelism the tokens of each sequence.
* Tokens come in as [B, T]; inside, Megatron's order [T, B, E] holds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import (
    VocabParallelEmbedding,
    gather_from_sequence_parallel_region,
    gather_from_tensor_model_parallel_region,
)
from megatron.core.transformer.transformer_block import TransformerBlock
from torch import nn

from megatron_iberis.config import ModelConfig
from megatron_iberis.errors import InputError
from megatron_iberis.kernels.linear_cross_entropy import (
    linear_cross_entropy,
    softcapped_logits,
    token_log_likelihoods,
)
from megatron_iberis.model.documents import Documents
from megatron_iberis.model.layer_specs import block_spec, transformer_config
from megatron_iberis.model.linear import gather_input
from megatron_iberis.model.parameters import place
from megatron_iberis.model.rotary import RotaryTable
from megatron_iberis.parallel.context import sum_of_chunks
from megatron_iberis.parallel.groups import ParallelGroups


class Iberis(nn.Module):
    """The language model, or this rank's part of it. Weights are uninitialised: see `initialization.py`."""

    def __init__(
        self,
        config: ModelConfig,
        groups: ParallelGroups,
        sequence_parallel: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.groups = config, groups
        size = groups.tp_size
        self.sequence_parallel = sequence_parallel and size > 1
        core = transformer_config(config, size, self.sequence_parallel)
        self.embedding = VocabParallelEmbedding(
            padded_vocabulary(config.vocab_size, size),
            config.width,
            init_method=core.init_method,
            reduce_scatter_embeddings=self.sequence_parallel,
            config=core,
            tp_group=groups.tp,
        )
        place(self.embedding.weight, "embedding", groups.tp, dim=0, size=config.vocab_size)
        self.decoder = TransformerBlock(core, block_spec(config, size, recompute), pg_collection=groups.collection())
        self.head = Head(config, groups, self.sequence_parallel)
        self.rotary = RotaryTable(config.width // config.heads, config.rope_base)

    def forward(
        self,
        tokens: torch.Tensor,
        targets: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
        per_token: bool = False,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """The summed loss in nats over targets >= 0 (fp32 scalar), or without targets the logits.

        tokens: int64 [B, T]; targets: int64 [B, T], -1 is ignored. Logits: fp32 [B, T, V], soft-capped. cu_seqlens:
        the borders of the documents in the rows strung together, integers from 0 to B * T, best on the CPU; every row
        begins a document. Documents then do not see each other. weights: what each target counts in the loss, fp32
        [B, T]; 1 by default. per_token: in place of the loss the log likelihood of each target, fp32 [B, T], 0 for
        ignored ones; for losses that make something else of them, at the price of the head's product once more in
        the backward pass; temperature divides the logits there.
        The ranks of one batch, tensor- and context-parallel, are given the same whole sequences, have the same
        result and are to make the same of it; each one's gradients are then its own part of the sum over
        context-parallel ranks. Raises InputError when T cannot be split into equal chunks.
        """
        chunk = self._own_chunk(tokens.shape[1])
        rotary = self.rotary(tokens.shape[1], tokens.device)
        tokens, rotary = tokens[:, chunk], (rotary[0][chunk], rotary[1][chunk])
        x = self.embedding(tokens)  # [B, T, E], or [T/TP, B, E] when sequence-parallel
        if not self.sequence_parallel:
            x = x.transpose(0, 1)
        x = F.rms_norm(x.contiguous(), (self.config.width,), eps=self.config.norm_eps)
        documents = None if cu_seqlens is None else Documents.of(cu_seqlens, len(tokens), chunk, tokens.device)
        x = self.decoder(hidden_states=x, attention_mask=None, rotary_pos_emb=rotary, packed_seq_params=documents)
        targets, weights = (None if y is None else y[:, chunk].t() for y in (targets, weights))
        found = self.head(x, targets, weights, per_token, temperature)
        if targets is not None and not per_token:
            return sum_of_chunks(found, self.groups.cp)
        # Logits [t, B, V] or log likelihoods [t, B] of this chunk.
        whole = gather_from_sequence_parallel_region(found, tensor_parallel_output_grad=False, group=self.groups.cp)
        return whole.transpose(0, 1)

    def _own_chunk(self, length: int) -> slice:
        size, rank = self.groups.cp_size, self.groups.cp_rank
        if length % size:
            raise InputError(f"{length} tokens cannot be split over {size} context-parallel ranks: pad them.")
        return slice(rank * length // size, (rank + 1) * length // size)


class Head(nn.Module):
    """The output projection, its rows split over tensor-parallel ranks, with soft cap and loss."""

    def __init__(self, config: ModelConfig, groups: ParallelGroups, sequence_parallel: bool) -> None:
        super().__init__()
        rows = padded_vocabulary(config.vocab_size, groups.tp_size) // groups.tp_size
        self.weight = nn.Parameter(torch.empty(rows, config.width))
        self.softcap, self.vocab_size = config.softcap, config.vocab_size
        part = place(self.weight, "unembedding", groups.tp, dim=0, size=config.vocab_size)
        self.first, self.padding = part.global_offset, rows - part.length  # the padding is at the end
        self.sequence_parallel, self.group = sequence_parallel, groups.tp

    def forward(
        self,
        x: torch.Tensor,
        targets: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
        per_token: bool = False,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """x: [T (/TP), B, E]; targets, weights: [T, B]. Logits [T, B, V]; given targets, the summed loss (scalar) or,
        per token, log likelihoods [T, B].
        """
        x = gather_input(x, self.sequence_parallel, self.group)
        if targets is None:
            logits = softcapped_logits(x, self.weight, self.softcap)  # [T, B, V/TP]
            logits = gather_from_tensor_model_parallel_region(logits, group=self.group)
            return logits[..., : self.vocab_size]
        part = (self.softcap, self.first, self.padding, self.group)
        rows, goals = x.flatten(0, 1), targets.flatten()
        if per_token:
            return token_log_likelihoods(rows, self.weight, goals, *part, temperature).view(targets.shape)
        return linear_cross_entropy(rows, self.weight, goals, *part, None if weights is None else weights.flatten())


def padded_vocabulary(vocab_size: int, tensor_size: int) -> int:
    """The smallest multiple of tensor_size that holds the vocabulary; the surplus rows take no part."""
    return -(-vocab_size // tensor_size) * tensor_size
