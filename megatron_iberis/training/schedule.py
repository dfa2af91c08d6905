"""Learning-rate multiplier and Muon's momentum, as functions of the step alone."""

from __future__ import annotations

from megatron_iberis.config import OptimizerConfig


def lr_multiplier(step: int, steps: int, config: OptimizerConfig) -> float:
    """What every rate is multiplied by at step 0 .. steps - 1.

    Linear warm-up over `warmup_steps`, or round(warmup_fraction x steps) if that is more, then 1, then linear over
    the last round(warmdown_fraction x steps) steps towards `final_lr_fraction`, which the step after the last would
    reach.
    """
    warmup = max(config.warmup_steps, round(config.warmup_fraction * steps))
    if step < warmup:
        return (step + 1) / warmup
    warmdown = round(config.warmdown_fraction * steps)
    if step <= steps - warmdown:
        return 1.0
    left = (steps - step) / warmdown
    # In this order it never rises, however it is rounded, and is `left` itself for a final fraction of 0.
    return config.final_lr_fraction + (1.0 - config.final_lr_fraction) * left


def muon_momentum(step: int, config: OptimizerConfig) -> float:
    """Linear from `momentum_start` to `momentum` over `momentum_warmup_steps`."""
    if config.momentum_warmup_steps == 0:
        return config.momentum
    done = min(step / config.momentum_warmup_steps, 1.0)
    return (1.0 - done) * config.momentum_start + done * config.momentum
