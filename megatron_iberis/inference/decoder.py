"""Saint Iberis as it answers: in one process, in plain PyTorch over `kernels/`, on a state that is handed to it.

* Embedding -> norm -> blocks -> norm -> head (untied) -> soft cap; block: x += mixer(norm(x)); x += mlp(norm(x)).
* Mixer: SLC2 (gated short convolution), or causal attention where the config says so. MLP: relu squared.
* The tokens of all requests stand in one row [N], one request after the other: nothing is padded. Only the mixers
  look from one token to another, through a step (`steps.py`), which knows whose they are and what precedes them.
* What reads the same input is one matrix: queries, keys and values; SLC2's four projections.

Written after `model/reference.py`, which it equals; weights come by upstream's names. E width, H heads, KV key-value
heads, D head size, V vocabulary, K kernel width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from megatron_iberis.config import ModelConfig
from megatron_iberis.inference.steps import Step
from megatron_iberis.kernels.bf16_linear import MOST_ROWS, bf16_linear
from megatron_iberis.kernels.cpu_threads import torch_threads
from megatron_iberis.kernels.huge_pages import on_huge_pages
from megatron_iberis.kernels.int8_linear import int8_linear, quantize
from megatron_iberis.kernels.rms_norm import rms_norm

_KINDS = {torch.bfloat16: "bf16"}
_FEW_TOKENS: dict[str, float] = {"fp32": 0, "bf16": MOST_ROWS, "int8": math.inf}
"""How many tokens of a step, at most, are multiplied by kernels of our own."""

Linear = Callable[[torch.Tensor], torch.Tensor]
"""[N, inputs] -> [N, outputs]."""


@dataclass(frozen=True)
class Attention:
    """Weights of an attention layer."""

    qkv: Linear  # [N, E] -> [N, (H + 2 KV) D]
    out: Linear  # [N, H D] -> [N, E]


@dataclass(frozen=True)
class SLC2:
    """Weights of a gated short convolution."""

    projections: Linear  # [N, E] -> [N, E | E | E / H | H]: x, b, a, alpha
    taps: torch.Tensor  # [E, 1, K]
    out: Linear  # [N, E] -> [N, E]


@dataclass(frozen=True)
class Layer:
    """A mixer, its number among those of its kind, and an MLP."""

    mixer: Attention | SLC2
    number: int
    up: Linear  # [N, E] -> [N, mlp_hidden], relu squared
    down: Linear  # [N, mlp_hidden] -> [N, E]


class Decoder:
    """The model of a resolved config.

    weights: full tensors by upstream's names. dtype: of activations and state. body, head: what the matrices of the
    layers and the head are kept as, fp32, bf16 or int8; by default as dtype says. int8 is for CPUs.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, torch.Tensor],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        body: str | None = None,
        head: str | None = None,
    ) -> None:
        self.config, self.dtype, self.device = config, dtype, torch.device(device)
        self.matrix_bytes = 0
        """What a step reads of the weights: all but the embedding, of which it looks up a few rows."""
        # For so many tokens the products are our own, on a CPU, and threads of torch are in the way of our own pool:
        # they spin for some milliseconds after each operation, on the cores that it needs.
        self._few = min(_FEW_TOKENS[kept_as or _KINDS.get(dtype, "fp32")] for kept_as in (body, head))

        def matrix(kept_as: str | None, *names: str, relu_squared: bool = False) -> Linear:
            joined = torch.cat([weights[f"{name}.weight"].to(torch.float32) for name in names])
            return self._linear(joined, kept_as, relu_squared)

        self.embedding = weights["transformer.wte.weight"].to(self.device, dtype)  # [V, E]
        self.head = matrix(head, "lm_head")  # [N, E] -> [N, V]
        self.layers: list[Layer] = []
        numbers = {Attention: 0, SLC2: 0}
        for i in range(config.depth):
            of = f"transformer.h.{i}"
            out = matrix(body, f"{of}.attn.c_proj")
            mixer: Attention | SLC2
            if config.is_attention(i):
                mixer = Attention(matrix(body, *(f"{of}.attn.{name}" for name in ("c_q", "c_k", "c_v"))), out)
            else:
                names = ("x_proj", "B_proj", "A_proj", "alpha_proj")
                taps = weights[f"{of}.attn.conv1d.weight"].to(self.device, dtype)
                taps = taps.permute(2, 1, 0).contiguous().permute(2, 1, 0)  # as decoding reads them: tap by tap
                mixer = SLC2(matrix(body, *(f"{of}.attn.{name}" for name in names)), taps, out)
            up, down = matrix(body, f"{of}.mlp.c_fc", relu_squared=True), matrix(body, f"{of}.mlp.c_proj")
            self.layers.append(Layer(mixer, numbers[type(mixer)], up, down))
            numbers[type(mixer)] += 1

    def _linear(self, weight: torch.Tensor, kept_as: str | None, relu_squared: bool) -> Linear:
        if kept_as == "int8":
            packed = quantize(weight)
            self.matrix_bytes += packed.nbytes
            return partial(int8_linear, weight=packed, relu_squared=relu_squared)
        dtype = {None: self.dtype, "fp32": torch.float32, "bf16": torch.bfloat16}[kept_as]
        kept = weight.to(self.device, dtype)
        if self.device.type == "cpu":
            kept = on_huge_pages(kept)
        self.matrix_bytes += kept.nbytes
        linear = partial(bf16_linear if dtype == torch.bfloat16 else _linear, weight=kept, relu_squared=relu_squared)
        return linear if dtype == self.dtype else lambda x: linear(x.to(dtype)).to(x.dtype)

    def __call__(self, tokens: torch.Tensor, step: Step, wanted: torch.Tensor | None = None) -> torch.Tensor:
        """The logits after each token: soft-capped, at least fp32, [N, V].

        tokens: int64 [N]; step: whose they are; it is given the tokens' keys, values and convolution inputs. wanted:
        numbers of the tokens whose logits are worked out, int64; by default all.
        """
        alone = self.device.type == "cpu" and len(tokens) <= self._few
        with torch.inference_mode(), torch_threads(1) if alone else nullcontext():
            return self._run(tokens, step, wanted)

    def _run(self, tokens: torch.Tensor, step: Step, wanted: torch.Tensor | None) -> torch.Tensor:
        angles = self._angles(step.positions)
        x = self._norm(F.embedding(tokens, self.embedding))  # [N, E]
        for layer in self.layers:
            h = self._norm(x)
            if isinstance(layer.mixer, Attention):
                x = x + self._attend(layer.mixer, layer.number, h, angles, step)
            else:
                x = x + self._convolve(layer.mixer, layer.number, h, step)
            x = x + layer.down(layer.up(self._norm(x)))
        x = self._norm(x if wanted is None else x[wanted])
        logits = _at_least_fp32(self.head(x))
        return logits.div_(self.config.softcap).tanh_().mul_(self.config.softcap)

    def _attend(self, layer: Attention, number: int, h: torch.Tensor, angles: Angles, step: Step) -> torch.Tensor:
        heads, kv = self.config.heads, self.config.kv_heads
        q, k, v = layer.qkv(h).unflatten(-1, (heads + 2 * kv, -1)).split((heads, kv, kv), dim=1)  # [N, heads, D]
        q, k = (self._norm(_rotate(x, angles)).to(v.dtype) for x in (q, k))
        return layer.out(step.attend(number, q, k, v).flatten(1))

    def _convolve(self, layer: SLC2, number: int, h: torch.Tensor, step: Step) -> torch.Tensor:
        width, heads = self.config.width, self.config.heads
        x, b, a, alpha = layer.projections(h).split((width, width, width // heads, heads), dim=-1)
        y = step.convolve(number, x, alpha, a, b, layer.taps)  # [N, E]
        return layer.out(self._norm(y) if self.config.inner_norm else y)

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.config.norm_eps)

    def _angles(self, positions: torch.Tensor) -> Angles:
        """(cos, sin) of position x base^(-2j / D), fp32 as in training, [N, 1, D/2]."""
        size = self.config.width // self.config.heads
        exponent = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device) / size
        theta = torch.outer(positions.to(torch.float32), 1.0 / self.config.rope_base**exponent).unsqueeze(1)
        return theta.cos(), theta.sin()


def _linear(x: torch.Tensor, weight: torch.Tensor, relu_squared: bool) -> torch.Tensor:
    y = F.linear(x, weight)
    return y.relu_().square_() if relu_squared else y


Angles = tuple[torch.Tensor, torch.Tensor]


def _rotate(x: torch.Tensor, angles: Angles) -> torch.Tensor:
    """Turns each head's halves (a, b) by minus the angle. [N, heads, D] -> the same, at least fp32."""
    cos, sin = angles
    a, b = _at_least_fp32(x).chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


def _at_least_fp32(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
