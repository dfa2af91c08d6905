"""The parallel model equals the plain one in logits, loss and every gradient, whatever its shape and layout."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_iberis.config import ModelConfig
from tests.support.comparison import deviations
from tests.support.ranks import Ranks

quickly = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def shapes(draw: Any, tensor_size: int = 1) -> ModelConfig:
    """Any small model that `tensor_size` can split; the vocabulary and the key-value heads need not divide."""
    kv_heads = draw(st.integers(1, 4))
    heads = kv_heads * draw(st.sampled_from([n for n in (1, 2, 3, 4) if kv_heads * n % tensor_size == 0]))
    return ModelConfig(
        depth=draw(st.integers(1, 6)),
        heads=heads,
        kv_heads=kv_heads,
        width=heads * draw(st.sampled_from([2, 4, 6, 16])),
        mlp_hidden=tensor_size * draw(st.integers(1, 40)),
        inner_norm=draw(st.booleans()),
        slc_rate=draw(st.integers(1, 4)),
        kernel=draw(st.integers(1, 5)),
        vocab_size=draw(st.integers(2, 300)),
        sequence_length=tensor_size * draw(st.integers(1, 12)),
        softcap=draw(st.sampled_from([1.0, 5.0, 15.0])),
        rope_base=draw(st.sampled_from([100.0, 10000.0])),
    ).resolved()


def check(found: list[dict[str, float]], slack: float = 1.0) -> None:
    """The golden cases' tolerances, times `slack`: heads of two channels amplify rounding, to 1e-4 and more."""
    for rank in found:
        assert rank["logits"] <= slack * 1e-4
        assert rank["loss"] <= slack * 5e-6
        assert rank["gradients"] <= slack * 5e-5


@quickly
@given(config=shapes(), seed=st.integers(0, 1000))
def test_any_shape_equals_reference(one_rank: Ranks, config: ModelConfig, seed: int) -> None:
    config.check()
    check(one_rank(deviations, config, 1, False, seed), slack=4)


@quickly
@given(config=shapes(tensor_size=2), sequence_parallel=st.booleans(), seed=st.integers(0, 1000))
def test_any_shape_at_tp2_equals_reference(
    two_ranks: Ranks, config: ModelConfig, sequence_parallel: bool, seed: int
) -> None:
    config.check()
    check(two_ranks(deviations, config, 2, sequence_parallel, seed), slack=4)


SMALL = ModelConfig(depth=3, width=32, heads=4, mlp_hidden=64, vocab_size=64, sequence_length=16, inner_norm=True)


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"vocab_size": 257}, id="vocabulary-that-2-does-not-divide"),
        pytest.param({"vocab_size": 3}, id="vocabulary-of-three"),
        pytest.param({"kv_heads": 1}, id="fewer-key-value-heads-than-ranks"),
        pytest.param({"heads": 6, "kv_heads": 3, "width": 48}, id="key-value-heads-that-2-does-not-divide"),
        pytest.param({"sequence_length": 2, "kernel": 5}, id="rows-shorter-than-the-kernel"),
        pytest.param({"slc_rate": 1}, id="attention-only"),
        pytest.param({"depth": 1}, id="one-layer"),
    ],
)
def test_tp2_equals_reference_where_nothing_divides(
    two_ranks: Ranks, changed: dict[str, Any], sequence_parallel: bool
) -> None:
    config = ModelConfig(**{**vars(SMALL), **changed}).resolved()
    check(two_ranks(deviations, config, 2, sequence_parallel))
