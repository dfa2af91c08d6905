"""A value in the [deepspeed] table that DeepSpeed refuses is a sentence, not its own page of text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from megatron_iberis.errors import InputError
from tests.support.ranks import Ranks
from tests.support.small_engines import Layout, engine, recipe


def refusal(table: dict[str, Any]) -> str:
    """Runs on a rank: what is said of an engine with this [deepspeed] table."""
    with pytest.raises(InputError) as caught:
        engine(replace(recipe(Layout(stage=2)), deepspeed=table))
    return str(caught.value)


@pytest.mark.parametrize(
    ("zero", "message"),
    [
        ({"offload_optimizer": {"device": "cpux"}}, "DeepSpeed refuses offload_optimizer.device = 'cpux'"),
        ({"reduce_bucket_size": "large"}, "DeepSpeed refuses reduce_bucket_size = 'large'"),
    ],
)
def test_a_value_that_deepspeed_refuses_is_named(one_rank: Ranks, zero: dict[str, Any], message: str) -> None:
    (said,) = one_rank(refusal, {"zero_optimization": zero})
    assert said.startswith(message)
    assert said.count("\n") == 0
