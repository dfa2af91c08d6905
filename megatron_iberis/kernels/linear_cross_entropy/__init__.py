"""Output head and soft-capped cross entropy in one, without ever holding all logits.

* `linear_cross_entropy`: the summed loss, its gradient worked out in the same pass.
* `token_log_likelihoods`: one number a token, for losses whose factors are known only after the forward pass.
* `softcapped_logits`: the logits themselves, for those who want them.
"""

from megatron_iberis.kernels.linear_cross_entropy.portable import (
    linear_cross_entropy,
    softcapped_logits,
    token_log_likelihoods,
)

__all__ = ["linear_cross_entropy", "softcapped_logits", "token_log_likelihoods"]
