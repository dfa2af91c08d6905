"""How large a batch pays: the critical batch, beyond which more tokens a step are ever less worth.

From Kaplan et al. (2020), eq. 1.4: tokens = 2.1e8 / loss^(1/0.21), at the loss that Hoffmann et al. (2022) predict
for so many parameters and tokens (their approach 3; loss of their tokenizer). Good for a factor of two: with other
optimizers and data others find other constants (nanochat: about 1 M tokens best at 26 layers).
"""

from __future__ import annotations


def expected_loss(parameters: float, tokens: float) -> float:
    """Nats a token, by Hoffmann et al.: 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28."""
    return float(1.69 + 406.4 / parameters**0.34 + 410.7 / tokens**0.28)


def critical_batch(parameters: float, tokens: float) -> float:
    """Tokens of a batch with which training takes twice the fewest steps, and twice the fewest tokens."""
    return float(2.1e8 / expected_loss(parameters, tokens) ** (1 / 0.21))


def wasted(batch: float, critical: float) -> float:
    """The share of tokens that are trained on only because the batch is as large as that: B / (B + B_crit)."""
    return batch / (batch + critical)
