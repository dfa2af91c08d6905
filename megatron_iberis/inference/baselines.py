"""What the engine's speed is measured against: the reference, and the reference step by step as upstream decodes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from megatron_iberis.config import ModelConfig
from megatron_iberis.model.reference import Angles, Attention, ReferenceIberis, rotary_angles, rotate

_ROOM = 1024
"""Tokens that may be added to a prompt."""


class Recomputation:
    """The likeliest next tokens by the whole sequence, run again for each of them."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, torch.Tensor]) -> None:
        self.config, self.model = config, ReferenceIberis(config)
        self.model.load_state_dict(dict(weights))
        self.last = torch.empty(0, dtype=torch.int64)
        """The newest token of each row, [B, 1]."""
        self._ids = self.last

    @torch.inference_mode()
    def prefill(self, ids: torch.Tensor) -> None:
        """The first tokens after prompts, ids: [B, T]."""
        self.last = self.model(ids)[:, -1:].argmax(-1)
        self._ids = torch.cat((ids, self.last), dim=1)

    def step(self) -> None:
        """One more token for each row."""
        self.prefill(self._ids)


class StepByStep(Recomputation):
    """As upstream's engine decodes: one token a step on a cache of keys and values, batch by batch.

    The convolutions then see nothing before the token, which is upstream's fault U2: its text is wrong, its speed is
    what users know.
    """

    @torch.inference_mode()
    def prefill(self, ids: torch.Tensor) -> None:
        batch, length = ids.shape
        layers = [block.attn for block in self.model.transformer.h if isinstance(block.attn, Attention)]
        shape = (batch, length + _ROOM, self.config.kv_heads, layers[0].head_size)
        self._caches = {layer: (torch.zeros(shape), torch.zeros(shape)) for layer in layers}
        self._angles = rotary_angles(length + _ROOM, self.model.head_size, self.model.rope_base, ids.device)
        self._run(ids, 0)

    def step(self) -> None:
        self._run(self.last, self._length)

    @torch.inference_mode()
    def _run(self, ids: torch.Tensor, start: int) -> None:
        """Runs ids [B, T] after the `start` tokens before them."""
        model, self._length = self.model, start + ids.shape[1]
        cos, sin = self._angles
        angles = cos[start : self._length], sin[start : self._length]
        x = model.norm(model.transformer.wte(ids))  # [B, T, E]
        for block in model.transformer.h:
            h, mixer = block.norm(x), block.attn
            x = x + (self._attend(mixer, h, angles, start) if isinstance(mixer, Attention) else mixer(h, angles))
            x = x + block.mlp(block.norm(x))
        self.last = model.lm_head(model.norm(x[:, -1:])).argmax(-1)  # the soft cap does not change which is largest

    def _attend(self, layer: Attention, h: torch.Tensor, angles: Angles, start: int) -> torch.Tensor:
        q, k, v = (m(h).unflatten(-1, (-1, layer.head_size)) for m in (layer.c_q, layer.c_k, layer.c_v))
        q, k = (layer.norm(rotate(x, angles)) for x in (q, k))
        keys, values = self._caches[layer]
        keys[:, start : self._length], values[:, start : self._length] = k, v
        q, k, v = (x.transpose(1, 2) for x in (q, keys[:, : self._length], values[:, : self._length]))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=start == 0, enable_gqa=layer.grouped)
        return layer.c_proj(y.transpose(1, 2).flatten(2))
