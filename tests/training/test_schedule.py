"""Rates and momentum follow upstream's rules (nanochat's base training), and stay sane for any other setting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_iberis.config import OptimizerConfig
from megatron_iberis.training.schedule import lr_multiplier, muon_momentum

DEFAULT = OptimizerConfig()


def multipliers(steps: int, config: OptimizerConfig) -> list[float]:
    return [lr_multiplier(step, steps, config) for step in range(steps)]


def test_rates_fall_over_the_last_fifth_and_the_step_after_the_last_would_be_zero() -> None:
    assert multipliers(20, DEFAULT) == [1.0] * 17 + [0.75, 0.5, 0.25]
    assert lr_multiplier(20, 20, DEFAULT) == 0.0
    d20 = multipliers(20677, DEFAULT)  # 4,135 steps of warm-down
    assert d20[: 20677 - 4135 + 1] == [1.0] * (20677 - 4135 + 1)
    assert d20[20677 - 4135 + 1] == 4134 / 4135
    assert d20[-1] == 1 / 4135


def test_warm_up_reaches_the_full_rate_at_its_last_step() -> None:
    config = OptimizerConfig(warmup_steps=4)
    assert multipliers(20, config)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_final_fraction_is_what_the_rates_fall_towards() -> None:
    config = OptimizerConfig(final_lr_fraction=0.2)
    assert multipliers(20, config)[16:] == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert multipliers(20, OptimizerConfig(final_lr_fraction=1.0)) == [1.0] * 20


def test_without_warm_down_rates_stay() -> None:
    assert multipliers(20, OptimizerConfig(warmdown_fraction=0.0)) == [1.0] * 20
    assert multipliers(4, OptimizerConfig(warmdown_fraction=1.0)) == [1.0, 0.75, 0.5, 0.25]


def test_momentum_rises_over_300_steps() -> None:
    assert muon_momentum(0, DEFAULT) == 0.85
    assert muon_momentum(150, DEFAULT) == pytest.approx(0.9)
    assert [muon_momentum(step, DEFAULT) for step in (300, 301, 100_000)] == [0.95] * 3
    assert muon_momentum(0, OptimizerConfig(momentum_warmup_steps=0)) == 0.95


fractions = st.floats(0.0, 1.0)


@given(
    steps=st.integers(1, 400),
    warmup=st.integers(0, 500),
    warmdown=fractions,
    final=fractions,
)
def test_any_schedule_rises_then_falls_and_is_never_negative(
    steps: int, warmup: int, warmdown: float, final: float
) -> None:
    config = OptimizerConfig(warmup_steps=warmup, warmdown_fraction=warmdown, final_lr_fraction=final)
    found = multipliers(steps, config)
    assert all(0.0 < m <= 1.0 for m in found)
    up, down = found[:warmup], found[warmup:]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)


def test_warm_up_may_be_a_share_of_the_steps() -> None:
    config = OptimizerConfig(warmup_fraction=0.1, warmdown_fraction=0.9)
    assert multipliers(20, config) == pytest.approx([0.5, 1.0, 1.0] + [left / 18 for left in range(17, 0, -1)])
    assert multipliers(20, OptimizerConfig(warmup_fraction=0.1, warmup_steps=4))[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert multipliers(1, config) == [1.0]
