"""Section [model]: the architecture.

A size of 0 means "derive it": `resolved()` fills it in from the depth, as nanochat does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

from megatron_iberis.config.checks import Above, AtLeast, AtMost, check_bounds, divisors, require


@dataclass(frozen=True)
class ModelConfig:
    """The architecture. The depth sets the width and the heads; every one of them can still be set."""

    depth: Annotated[int, AtLeast(1), AtMost(10_000)] = 20
    """Number of layers. Layer i is attention when i % slc_rate == 1 or i is the last one, else SLC2."""
    width: Annotated[int, AtLeast(1), AtMost(1_000_000)] = 0
    """Channels of the residual stream (E); 0: 64 x depth."""
    head_size: Annotated[int, AtLeast(1)] = 128
    """Channels a head (D): 128 in the English recipe, 64 in the Japanese-English one."""
    heads: Annotated[int, AtLeast(1)] = 0
    """Query heads (H), also the heads of SLC2's gate; 0: width / head_size, rounded up."""
    kv_heads: Annotated[int, AtLeast(1)] = 0
    """Key and value heads, shared by groups of query heads; 0: as many as query heads."""
    mlp_ratio: Annotated[float, Above(0), AtMost(1_000)] = 4.0
    """Width of the MLP over the model's; 5.5 in the Japanese-English recipe."""
    mlp_hidden: Annotated[int, AtLeast(1)] = 0
    """Channels inside the MLP; 0: int(mlp_ratio x width)."""
    inner_norm: bool = False
    """RMS norm inside SLC2 before its output projection; on in the Japanese-English recipe."""
    slc_rate: Annotated[int, AtLeast(1)] = 3
    """One layer in so many is attention; 1 makes every layer attention, for comparison."""
    kernel: Annotated[int, AtLeast(1)] = 3
    """Taps of SLC2's causal convolution (K), the current token included."""
    vocab_size: Annotated[int, AtLeast(2), AtMost(2**31, "token files hold 32-bit ids")] = 65536
    """Token ids (V). The tokenizer may have fewer, never more."""
    sequence_length: Annotated[int, AtLeast(1)] = 2048
    """Tokens in a training row (T)."""
    rope_base: Annotated[float, Above(0)] = 10000.0
    """Base of the rotary angles."""
    softcap: Annotated[float, Above(0), AtMost(40, "the loss takes exp(-2 x softcap) in fp32")] = 15.0
    """Logits are capped softly: softcap x tanh(logits / softcap)."""
    norm_eps: Annotated[float, Above(0)] = 1.1920929e-07
    """Added to the mean square in every RMS norm; the default is fp32's machine epsilon."""

    def resolved(self) -> ModelConfig:
        """The same with every derived size filled in. Raises InputError when there is nothing to derive them from."""
        check_bounds("model", self, ("head_size", "mlp_ratio"))  # by which the others are derived
        width = self.width or 64 * self.depth
        heads = self.heads or math.ceil(width / self.head_size)
        return replace(
            self,
            width=width,
            heads=heads,
            head_size=width // heads if heads > 0 and width % heads == 0 else self.head_size,
            kv_heads=self.kv_heads or heads,
            mlp_hidden=self.mlp_hidden or int(self.mlp_ratio * width),
        )

    def check(self) -> None:
        """Raises InputError when the (resolved) sizes do not fit together."""
        require(
            self.width % self.heads == 0,
            f"model.width {self.width} cannot be split into {self.heads} heads: set model.heads to a divisor "
            f"of {self.width}, or choose another model.depth.",
        )
        require(
            (self.width // self.heads) % 2 == 0,
            f"model.width {self.width} over {self.heads} heads gives {self.width // self.heads} channels a head: "
            "rotary embedding needs an even number; change model.heads.",
        )
        require(
            self.heads % self.kv_heads == 0,
            f"{self.heads} query heads cannot share {self.kv_heads} key-value heads: "
            f"set model.kv_heads to {divisors(self.heads)}.",
        )

    def is_attention(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) mixes by attention; the others by SLC2."""
        return layer == self.depth - 1 or layer % self.slc_rate == 1 % self.slc_rate

    @property
    def attention_layers(self) -> list[int]:
        """The numbers (from 0) of the attention layers."""
        return [layer for layer in range(self.depth) if self.is_attention(layer)]

    def parameter_count(self) -> int:
        """Parameters of the resolved model, padding of the vocabulary not counted."""
        e, h = self.width, self.heads
        head = e // h
        slc2 = 3 * e * e + e * h + e * head + e * self.kernel
        attention = 2 * e * e + 2 * e * self.kv_heads * head
        count = len(self.attention_layers)
        mixers = count * attention + (self.depth - count) * slc2
        return 2 * self.vocab_size * e + mixers + self.depth * 2 * e * self.mlp_hidden

    def flops_per_token(self) -> float:
        """Training FLOPs a token: 6 a matrix parameter, and attention's products where there is attention.

        The embedding is a look-up and counts nothing. Upstream counts attention in all layers, 12 to 14 %
        too much. Attention is counted whole (12 E T), as nanochat does, although half of it is masked.
        """
        dense = 6.0 * (self.parameter_count() - self.vocab_size * self.width)
        return dense + 12.0 * self.width * self.sequence_length * len(self.attention_layers)
