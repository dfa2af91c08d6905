"""A step waits for the device at its border alone, a few times: each wait leaves a GPU without work.

A value that is read from a tensor is such a wait (`_local_scalar_dense`, below `.item()`, `float` and `tolist`), so a
CPU counts what a GPU would wait for.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_iberis.training.engine import deepspeed_config
from tests.support.ranks import Ranks
from tests.support.small_engines import MODEL, SEQUENCE_LENGTH, Layout, engine, own_micro_batches, recipe

AT_THE_BORDER = 3
"""Loss, figures and requests to stop are one; the norm is one, and DeepSpeed may ask whether it is finite."""


class Reads(TorchDispatchMode):
    """Counts values that are read from tensors; of `tolist`, which needs no operation on a CPU, each call."""

    count = 0

    def __enter__(self) -> Reads:
        self._tolist = torch.Tensor.tolist
        torch.Tensor.tolist = self._listed  # type: ignore[method-assign, assignment]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.Tensor.tolist = self._tolist  # type: ignore[method-assign]

    @property
    def _listed(self) -> Any:
        def tolist(tensor: torch.Tensor) -> Any:
            self.count += 1
            return self._tolist(tensor)

        return tolist

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def reads(layout: Layout, dtype: str, rows: int) -> int:
    """Runs on a rank: the reads of a step (the third) with micro-batches of so many rows."""
    settings = recipe(replace(layout, rows=rows))
    own = engine(replace(settings, train=replace(settings.train, dtype=dtype)))
    stream = torch.randint(MODEL.vocab_size, (8, SEQUENCE_LENGTH + 1), generator=torch.Generator().manual_seed(0))
    for step in range(3):
        batches = own_micro_batches(own, stream[:, :-1].clone(), stream[:, 1:].clone())
        with Reads() as found:
            own.step(step, batches)
    return found.count


@pytest.mark.parametrize(
    ("stage", "dtype"), [(0, "fp32"), *((stage, dtype) for stage in (1, 2, 3) for dtype in ("fp32", "bf16"))]
)
def test_a_step_reads_a_few_values_however_many_micro_batches_it_has(one_rank: Ranks, stage: int, dtype: str) -> None:
    (one,) = one_rank(reads, Layout(stage=stage), dtype, 8)
    (several,) = one_rank(reads, Layout(stage=stage), dtype, 2)
    assert one == several
    assert one <= AT_THE_BORDER


def test_deepspeed_does_not_wait_for_the_device_to_time_steps() -> None:
    config = deepspeed_config(recipe(Layout(stage=1)), SimpleNamespace(dp_size=1, dp_cp_size=1))  # type: ignore[arg-type]
    assert config["timers"]["throughput"]["enabled"] is False
