# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The megatron_iberis authors
"""Saint Iberis for transformers: short gated convolutions, with causal attention in every third layer or so.

* Embedding -> norm -> blocks -> norm -> head (untied) -> soft cap; block: x += mixer(norm(x)); x += mlp(norm(x)).
* Mixer: SLC2 (gated short convolution), or attention where `layer_types` says so. MLP: relu squared.
* Rotary positions, RMS norm of queries and keys after the rotation, grouped key-value heads.
* No biases, no learned norm weights, no dropout, and no buffers: the angles are computed when they are needed.
* What is kept between calls is transformers' own `DynamicCache`: keys and values of attention layers, the last inputs
  of convolutions. Padding, wherever it is, changes nothing for the tokens that are none.

This file needs torch and transformers, nothing else. B batch, T time, E width, H heads, D head size, K kernel width.
"""

from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

if tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (5, 18):
    raise ImportError(
        f"Saint Iberis needs transformers 5.18 or newer, and this is {transformers.__version__}: "
        "pip install --upgrade transformers"
    )

from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

Angles = tuple[Tensor, Tensor]
# What a model takes and gives back beside its tokens is called `cache` from transformers 5.24 on.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


class IberisConfig(PreTrainedConfig):
    """The sizes of the model. Layer i is attention when i % slc_rate == 1 or i is the last one, else SLC2."""

    model_type = "iberis"
    keys_to_ignore_at_inference = ("past_key_values", "cache")

    vocab_size: int = 65536
    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 20
    num_attention_heads: int = 10
    num_key_value_heads: int = 10
    head_dim: int = 128
    max_position_embeddings: int = 2048
    slc_rate: int = 3
    conv_kernel_size: int = 3
    conv_output_norm: bool = False
    rope_theta: float = 10000.0
    final_logit_softcapping: float = 15.0
    rms_norm_eps: float = 1.1920929e-07
    initializer_range: float = 0.02
    layer_types: Any = None  # for each layer "full_attention" or "conv"; None: as slc_rate says
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.layer_types is None:
            attention = {*range(1 % self.slc_rate, self.num_hidden_layers, self.slc_rate), self.num_hidden_layers - 1}
            self.layer_types = ["full_attention" if i in attention else "conv" for i in range(self.num_hidden_layers)]
        super().__post_init__(**kwargs)


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension."""
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


def rotary_angles(positions: Tensor, head_dim: int, base: float) -> Angles:
    """(cos, sin) of position x base^(-2j / D), each fp32 [B, T, 1, D/2]. positions: [B, T]."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    theta = positions[..., None, None].float() * (1.0 / base**exponent)
    return theta.cos(), theta.sin()


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Turns each head's halves (a, b) by minus the angle. [B, T, H, D] -> the same, fp32."""
    cos, sin = angles
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class IberisAttention(nn.Module):
    """Causal attention; consecutive query heads share one key-value head."""

    def __init__(self, config: IberisConfig, layer_idx: int):
        super().__init__()
        self.layer_idx, self.head_dim, self.eps = layer_idx, config.head_dim, config.rms_norm_eps
        self.grouped = config.num_key_value_heads < config.num_attention_heads
        self.c_q = nn.Linear(config.hidden_size, config.num_attention_heads * self.head_dim, bias=False)
        self.c_k = nn.Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=False)
        self.c_v = nn.Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=False)
        self.c_proj = nn.Linear(config.num_attention_heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, x: Tensor, angles: Angles, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """mask: [B, 1, T, keys], what each token may look at; None: itself and all before."""
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_dim)) for layer in (self.c_q, self.c_k, self.c_v))
        q, k = (rms_norm(rotate(heads, angles), self.eps).type_as(v) for heads in (q, k))
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))  # [B, H, T, D]
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        causal = mask is None and q.shape[2] > 1
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=self.grouped)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class IberisSLC2(nn.Module):
    """Gated short convolution: y = B * SiLU(conv(SiLU(SiLU(alpha) (x) A) * X)), causal over K tokens."""

    def __init__(self, config: IberisConfig, layer_idx: int):
        super().__init__()
        width, self.kernel = config.hidden_size, config.conv_kernel_size
        self.layer_idx = layer_idx
        self.x_proj = nn.Linear(width, width, bias=False)
        self.alpha_proj = nn.Linear(width, config.num_attention_heads, bias=False)
        self.A_proj = nn.Linear(width, width // config.num_attention_heads, bias=False)
        self.B_proj = nn.Linear(width, width, bias=False)
        self.conv1d = nn.Conv1d(width, width, self.kernel, groups=width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.output_eps = config.rms_norm_eps if config.conv_output_norm else None

    def forward(self, x: Tensor, angles: Angles, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """mask: [B, T], 0 where there is padding; None: there is none."""
        outer = F.silu(self.alpha_proj(x)).unsqueeze(-1) * self.A_proj(x).unsqueeze(-2)  # [B, T, H, D]
        u = F.silu(outer.flatten(2)) * self.x_proj(x)  # [B, T, E]
        if mask is not None:  # what precedes the first token is zeros
            u = u.masked_fill(mask.unsqueeze(-1) == 0, 0)
        window = self.remember(u.transpose(1, 2), cache)  # [B, E, at least T]: with the inputs before
        if mask is not None:  # padding goes to the front, so that none is left between a token and those before it
            front = F.pad(mask != 0, (window.shape[-1] - mask.shape[1], 0), value=True).long().argsort(stable=True)
            window = window.gather(2, front.unsqueeze(1).expand_as(window))
            if cache is not None:
                cache.layers[self.layer_idx].reset()
                self.remember(window, cache)
        z = self.conv1d(F.pad(window, (self.kernel - 1, 0)))
        if mask is not None:
            z = z.gather(2, front.argsort().unsqueeze(1).expand_as(z))
        y = self.B_proj(x) * F.silu(z[..., -x.shape[1] :].transpose(1, 2))
        return self.c_proj(y if self.output_eps is None else rms_norm(y, self.output_eps))

    def remember(self, u: Tensor, cache: Cache | None) -> Tensor:
        """The inputs that the cache holds and then u, [B, E, ...]; it holds the last K of them after that."""
        if cache is None:
            return u
        return cache.update_conv_state(u, self.layer_idx, conv_kernel_size=self.kernel)


class IberisMLP(nn.Module):
    """Two layers with relu squared between them."""

    def __init__(self, config: IberisConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.c_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class IberisBlock(GradientCheckpointingLayer):
    """A mixer and an MLP, each on the normalised residual stream."""

    def __init__(self, config: IberisConfig, layer_idx: int):
        super().__init__()
        mixer = IberisAttention if config.layer_types[layer_idx] == "full_attention" else IberisSLC2
        self.attn = mixer(config, layer_idx)
        self.mlp = IberisMLP(config)
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor, angles: Angles, mask: Tensor | None, cache: Cache | None) -> Tensor:
        x = x + self.attn(rms_norm(x, self.eps), angles, mask, cache)
        return x + self.mlp(rms_norm(x, self.eps))


class IberisPreTrainedModel(PreTrainedModel):
    """What transformers has to know of the model."""

    config_class = IberisConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["IberisBlock"]  # noqa: RUF012  transformers wants lists here
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _supports_sdpa = True
    # Servers that take any attention model (vLLM, SGLang) would run one without its convolutions' state, and so
    # mix up requests: they look at this.
    _supports_attention_backend = False


class IberisModel(IberisPreTrainedModel):
    """The model without its head: token ids -> the normalised residual stream."""

    def __init__(self, config: IberisConfig):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.h = nn.ModuleList(IberisBlock(config, layer) for layer in range(config.num_hidden_layers))
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.wte = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """attention_mask: [B, cached + T], 0 where there is padding; or by kind of layer what it is given below.

        inputs_embeds: before the first norm. cache: the newer name of past_key_values.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds.")
        embedded = self.wte(input_ids) if inputs_embeds is None else inputs_embeds  # [B, T, E]
        cache = past_key_values if cache is None else cache
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            use_cache, cache = False, None  # a block that runs twice would add to it twice
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        padding_mask = attention_mask if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 else None
        if position_ids is None:
            position_ids = positions_of(embedded, padding_mask, cache)
        masks = attention_mask
        if not isinstance(masks, dict):
            new = None if padding_mask is None else padding_mask[:, -embedded.shape[1] :]
            masks = {
                "full_attention": create_causal_mask(self.config, embedded, attention_mask, cache, position_ids),
                "conv": None if new is None or new.all() else new,
            }
        angles = rotary_angles(position_ids, self.config.head_dim, self.config.rope_theta)
        x = rms_norm(embedded, self.config.rms_norm_eps)
        streams = [x]
        for kind, block in zip(self.config.layer_types, self.h, strict=True):
            x = block(x, angles, masks[kind], cache)
            streams.append(x)
        x = rms_norm(x, self.config.rms_norm_eps)
        hidden_states = (*streams[:-1], x) if output_hidden_states else None
        return BaseModelOutputWithPast(x, hidden_states=hidden_states, **{CACHE: cache if use_cache else None})


def positions_of(embedded: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
    """The place of each token among those that are no padding, [B or 1, T]. mask: [B, cached + T]."""
    length = embedded.shape[1]
    if mask is not None:
        return (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
    before = cache.get_seq_length() if cache is not None else 0
    return torch.arange(before, before + length, device=embedded.device).unsqueeze(0)


class IberisForCausalLM(IberisPreTrainedModel, GenerationMixin):
    """The language model: token ids -> fp32 logits, capped softly."""

    def __init__(self, config: IberisConfig):
        super().__init__(config)
        self.transformer = IberisModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.transformer.wte = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple:
        """labels: [B, T], -100 is ignored. logits_to_keep: of how many last tokens (0: all), or of which."""
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            cache=cache,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        cap = self.config.final_logit_softcapping
        logits = cap * torch.tanh(self.lm_head(outputs.last_hidden_state[:, kept]).float() / cap)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        kept_state = {CACHE: outputs[CACHE]} if CACHE in outputs else {}
        result = CausalLMOutputWithPast(loss, logits, hidden_states=outputs.hidden_states, **kept_state)
        return result.to_tuple() if return_dict is False else result
