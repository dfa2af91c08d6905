"""Output head and soft-capped cross entropy in one, without ever holding all logits."""

from megatron_iberis.kernels.linear_cross_entropy.portable import linear_cross_entropy

__all__ = ["linear_cross_entropy"]
