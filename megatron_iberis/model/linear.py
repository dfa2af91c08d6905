"""How SLC2 and attention meet tensor parallelism.

* `gather_input`: the block's input, gathered once for all projections of a mixer (megatron-core's column-parallel
  layers would each gather it and each reduce its gradient).
* `ColumnLinear`, `RowLinear`: megatron-core's layers, whose weights know which part of the full matrix they are.
* `ReplicatedLinear`: a weight every rank holds whole although each uses its result for its own heads only.
* `column_linear`, `row_linear`, `replicated_linear`: such layers of a spec, as the mixers need them.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.spec_utils import build_module
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import nn

from megatron_iberis.model.parameters import place


def gather_input(x: torch.Tensor, sequence_parallel: bool, group: Any) -> torch.Tensor:
    """[T or T/TP, B, E] -> [T, B, E] on every rank; the backward sums the ranks' gradients (and splits them)."""
    if sequence_parallel:
        return gather_from_sequence_parallel_region(x, tensor_parallel_output_grad=True, group=group)
    return copy_to_tensor_model_parallel_region(x, group=group)


class ColumnLinear(ColumnParallelLinear):
    """A weight [outputs / TP, inputs]: each rank has some of the matrix's rows."""

    def __init__(self, *args: Any, tp_group: Any, **kwargs: Any) -> None:
        super().__init__(*args, tp_group=tp_group, **kwargs)
        place(self.weight, "matrix", tp_group, dim=0)


class RowLinear(RowParallelLinear):
    """A weight [outputs, inputs / TP]: each rank has some of the matrix's columns."""

    def __init__(self, *args: Any, tp_group: Any, **kwargs: Any) -> None:
        super().__init__(*args, tp_group=tp_group, **kwargs)
        place(self.weight, "matrix", tp_group, dim=1)


def column_linear(spec: Any, inputs: int, outputs: int, config: TransformerConfig, group: Any) -> nn.Module:
    """A column-parallel layer [T, B, inputs] -> [T, B, outputs / TP] without communication of its own."""
    local = copy.copy(config)  # not dataclasses.replace: that would run megatron-core's derivations again
    local.sequence_parallel = False
    return build_module(
        spec,
        inputs,
        outputs,
        config=local,
        init_method=config.init_method,
        bias=False,
        gather_output=False,
        disable_grad_reduce=True,
        tp_group=group,
    )


def row_linear(spec: Any, inputs: int, outputs: int, config: TransformerConfig, group: Any) -> nn.Module:
    """A row-parallel layer [T, B, inputs / TP] -> [T or T/TP, B, outputs], summed over the ranks."""
    return build_module(
        spec,
        inputs,
        outputs,
        config=config,
        init_method=config.output_layer_init_method,
        bias=False,
        input_is_parallel=True,
        skip_bias_add=True,
        tp_group=group,
    )


def replicated_linear(spec: Any, inputs: int, outputs: int, config: TransformerConfig, group: Any) -> nn.Module:
    """A layer [T, B, inputs] -> [T, B, outputs] that is whole on every rank."""
    return build_module(spec, inputs, outputs, config=config, tp_group=group)


class ReplicatedLinear(nn.Module):
    """A linear layer whose weight is whole on every tensor-parallel rank. [..., inputs] -> [..., outputs].

    Each rank's gradient covers only what its own heads made of the result. Nobody else sums these parts
    (DeepSpeed reduces over data-parallel ranks alone), so autograd does, and it holds for every ZeRO stage.
    """

    def __init__(self, inputs: int, outputs: int, config: TransformerConfig, tp_group: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=config.params_dtype))
        place(self.weight, "matrix", tp_group)
        self.tp_group = tp_group

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        weight = copy_to_tensor_model_parallel_region(self.weight, group=self.tp_group)
        return F.linear(x, weight), None
