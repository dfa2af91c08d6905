"""What is said of the kernels at the start of a run is what the model calls."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from megatron_iberis.kernels import attention
from megatron_iberis.kernels.choice import kernels_line


def test_the_line_names_the_path_of_every_operation() -> None:
    assert kernels_line("cpu") == "kernels: attention sdpa, convolution native, loss native"


def test_the_path_that_is_named_is_the_one_that_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(NAME="another", causal_attention=lambda q, k, v: q + k + v)
    monkeypatch.setattr(attention, "implementation", other)
    assert kernels_line("cpu").startswith("kernels: attention another, ")
    one = torch.ones(2, 1, 1, 2)
    assert torch.equal(attention.causal_attention(one, one, one), 3 * one)
