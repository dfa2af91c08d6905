"""SLC2's mixing: gate, short causal convolution, second gate (`gated_short_convolution`)."""

from megatron_iberis.kernels.short_convolution.portable import gated_short_convolution

__all__ = ["gated_short_convolution"]
