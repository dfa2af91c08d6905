"""Saint Iberis in plain PyTorch: one process, one file, nothing but torch. To read, to test against, to race against.

* Embedding -> norm -> blocks -> norm -> head (untied) -> soft cap; block: x += mixer(norm(x)); x += mlp(norm(x)).
* Mixer: SLC2 (gated short convolution), or causal attention where the config says so. MLP: relu squared.
* Rotary positions, RMS norm of queries and keys after the rotation, grouped key-value heads.
* No biases, no learned norm weights, no dropout.
* Parameters are named as upstream names them (Liquid_Time_nanochat, gpt.py): published weights load as they are.

B batch, T time, E width, H heads, D head size, V vocabulary, K kernel width; order B T E throughout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from megatron_iberis.config import ModelConfig


class Norm(nn.Module):
    """x / sqrt(mean(x^2) + eps) over the last dimension."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), eps=self.eps)


Angles = tuple[torch.Tensor, torch.Tensor]


def rotary_angles(length: int, head_size: int, base: float, device: torch.device) -> Angles:
    """(cos, sin) of position x base^(-2j / D), each fp32 [T, 1, D/2]."""
    exponent = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    positions = torch.arange(length, dtype=torch.float32, device=device)
    theta = torch.outer(positions, 1.0 / base**exponent).unsqueeze(1)
    return theta.cos(), theta.sin()


def rotate(x: torch.Tensor, angles: Angles) -> torch.Tensor:
    """Turns each head's halves (a, b) by minus the angle. [B, T, H, D] -> the same, fp32."""
    cos, sin = angles
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class Attention(nn.Module):
    """Causal attention; consecutive query heads share one key-value head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, self.head_size = config.width, config.width // config.heads
        self.c_q = nn.Linear(width, width, bias=False)
        self.c_k = nn.Linear(width, config.kv_heads * self.head_size, bias=False)
        self.c_v = nn.Linear(width, config.kv_heads * self.head_size, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.norm = Norm(config.norm_eps)
        self.grouped = config.kv_heads < config.heads

    def forward(self, x: torch.Tensor, angles: Angles) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_size)) for layer in (self.c_q, self.c_k, self.c_v))
        q, k = (self.norm(rotate(heads, angles)).type_as(v) for heads in (q, k))
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))  # [B, H, T, D]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class SLC2(nn.Module):
    """Gated short convolution: y = B * SiLU(conv(SiLU(SiLU(alpha) (x) A) * X)), causal over K tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, kernel = config.width, config.kernel
        self.x_proj = nn.Linear(width, width, bias=False)
        self.alpha_proj = nn.Linear(width, config.heads, bias=False)
        self.A_proj = nn.Linear(width, width // config.heads, bias=False)
        self.B_proj = nn.Linear(width, width, bias=False)
        self.conv1d = nn.Conv1d(width, width, kernel, padding=kernel - 1, groups=width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.norm = Norm(config.norm_eps) if config.inner_norm else nn.Identity()

    def forward(self, x: torch.Tensor, _: Angles) -> torch.Tensor:
        outer = F.silu(self.alpha_proj(x)).unsqueeze(-1) * self.A_proj(x).unsqueeze(-2)  # [B, T, H, D]
        u = F.silu(outer.flatten(2)) * self.x_proj(x)  # [B, T, E]
        z = self.conv1d(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)  # cropped: causal
        return self.c_proj(self.norm(self.B_proj(x) * F.silu(z)))


class MLP(nn.Module):
    """Two layers with relu squared between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, config.mlp_hidden, bias=False)
        self.c_proj = nn.Linear(config.mlp_hidden, config.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    """A mixer and an MLP, each on the normalised residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config) if config.is_attention(layer) else SLC2(config)
        self.mlp = MLP(config)
        self.norm = Norm(config.norm_eps)

    def forward(self, x: torch.Tensor, angles: Angles) -> torch.Tensor:
        x = x + self.attn(self.norm(x), angles)
        return x + self.mlp(self.norm(x))


class ReferenceIberis(nn.Module):
    """The language model of a resolved config. Weights are torch's defaults: load what you want to compare."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.softcap, self.rope_base = config.softcap, config.rope_base
        self.head_size = config.width // config.heads
        wte = nn.Embedding(config.vocab_size, config.width)
        blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.transformer = nn.ModuleDict({"wte": wte, "h": blocks})
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.norm = Norm(config.norm_eps)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        """The summed loss in nats over targets >= 0 (fp32 scalar), or without targets the logits.

        tokens: int64 [B, T]; targets: int64 [B, T], -1 is ignored. Logits: fp32 [B, T, V], soft-capped.
        """
        angles = rotary_angles(tokens.shape[1], self.head_size, self.rope_base, tokens.device)
        x = self.norm(self.transformer.wte(tokens))  # [B, T, E]
        for block in self.transformer.h:
            x = block(x, angles)
        logits = self.lm_head(self.norm(x)).float()  # [B, T, V]
        logits = self.softcap * torch.tanh(logits / self.softcap)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
