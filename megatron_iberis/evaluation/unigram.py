"""The unigram baseline: what a model that knows only how frequent each token is would reach on the same text."""

from __future__ import annotations

import numpy as np

from megatron_iberis.data.token_files.reader import TokenFile
from megatron_iberis.evaluation.bits_per_byte import TextLoss


def unigram_loss(train: TokenFile, val: TokenFile, token_bytes: np.ndarray, max_tokens: int = 1 << 26) -> TextLoss:
    """Loss of the training file's token frequencies (one added to each count) on the held-out file.

    token_bytes: [V]. At most max_tokens of either file are read, from its beginning.
    """
    vocab = len(token_bytes)
    seen = np.bincount(train.tokens(0, min(train.num_tokens, max_tokens)), minlength=vocab) + 1.0
    held_out = np.bincount(val.tokens(0, min(val.num_tokens, max_tokens)), minlength=vocab)
    held_out = np.where(token_bytes > 0, held_out, 0)
    nats = -(held_out * np.log(seen / seen.sum())).sum()
    return TextLoss(float(nats), int(held_out.sum()), int((held_out * token_bytes).sum()))
