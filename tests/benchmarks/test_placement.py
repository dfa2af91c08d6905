"""On a GPU every tensor of the model is on the GPU, in forward and backward.

Shown on the meta device, whose tensors have a device and no numbers: whatever touches a tensor of the CPU is found,
and what would have to wait for a number of the GPU is an error. (Fake CUDA tensors need a CUDA build for autograd.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from megatron_iberis.config import ModelConfig
from megatron_iberis.kernels.linear_cross_entropy import linear_cross_entropy
from megatron_iberis.model.documents import Documents
from megatron_iberis.model.initialization import build_model
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.model.rotary import RotaryTable
from megatron_iberis.training.newton_schulz import orthogonalize
from tests.support.ranks import Ranks, groups_of
from tests.support.small_engines import MODEL

GPU = torch.device("meta")
ROWS, LENGTH = 2, MODEL.sequence_length
BORDERS = torch.tensor([0, 3, LENGTH, LENGTH + 9, 2 * LENGTH])


class Strangers(TorchDispatchMode):
    """Every operation inside that takes or gives a tensor that is not on the GPU, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        if any(t.device != GPU for t in tensors):
            self.found.append(str(func))
        return result


def strangers(action: Callable[[], object]) -> list[str]:
    with Strangers() as seen:
        action()
    return seen.found


def test_an_operation_that_meets_a_tensor_of_the_cpu_is_found() -> None:
    on_gpu = torch.empty(2, 2, device=GPU)
    assert strangers(lambda: on_gpu @ on_gpu + 1) == []
    assert strangers(lambda: on_gpu @ torch.ones(2, 2)) == ["aten.ones.default", "aten.mm.default"]


def trained(model: torch.nn.Module, *more: torch.Tensor) -> list[str]:
    """Forward, backward and logits in bf16: what met a tensor of the CPU, and which gradients are not on the GPU."""
    model.to(GPU, torch.bfloat16)
    tokens = torch.empty(ROWS, LENGTH, dtype=torch.int64, device=GPU)
    found = strangers(lambda: (model(tokens, tokens, *more).backward(), model(tokens)))
    return found + [name for name, p in model.named_parameters() if p.grad is None or p.grad.device != GPU]


def iberis(config: ModelConfig, recompute: bool, documents: bool) -> list[str]:
    """Runs on a rank. Documents are laid out on the CPU before the model runs; their positions go to the GPU."""
    model = build_model(config, groups_of(1), recompute=recompute)
    if not documents:
        return trained(model)
    placed, original = Documents.of(BORDERS, ROWS, slice(0, LENGTH), GPU), Documents.of
    Documents.of = lambda *_: placed  # type: ignore[method-assign, assignment]
    try:
        return trained(model, BORDERS)
    finally:
        Documents.of = original  # type: ignore[method-assign]


@pytest.mark.parametrize(("recompute", "documents"), [(False, False), (True, False), (False, True)])
def test_iberis_trains_with_all_tensors_on_the_gpu(one_rank: Ranks, recompute: bool, documents: bool) -> None:
    assert one_rank(iberis, MODEL, recompute, documents) == [[]]


def test_the_reference_trains_with_all_tensors_on_the_gpu() -> None:
    assert trained(ReferenceIberis(MODEL)) == []


def test_positions_of_documents_go_to_the_gpu() -> None:
    documents = Documents.of(BORDERS, ROWS, slice(0, LENGTH), GPU)
    assert documents.positions.device == GPU
    assert documents.rows == ((3, LENGTH - 3), (9, LENGTH - 9))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_keeps_all_tensors_on_the_gpu(weighted: bool) -> None:
    hidden, head = (torch.empty(n, 32, device=GPU, requires_grad=True) for n in (10, 61))
    targets = torch.empty(10, dtype=torch.int64, device=GPU)
    weights = torch.empty(10, device=GPU) if weighted else None
    assert strangers(lambda: linear_cross_entropy(hidden, head, targets, 15.0, weights=weights).backward()) == []
    for leaf in (hidden, head):
        assert leaf.grad is not None
        assert leaf.grad.device == GPU


def test_rotary_tables_are_made_on_the_gpu_that_asks_even_after_the_cpu_did() -> None:
    table = RotaryTable(8, 10000.0)
    table(LENGTH, torch.device("cpu"))
    assert strangers(lambda: table(LENGTH, GPU)) == []
    assert [t.device for t in table(LENGTH, GPU)] == [GPU, GPU]


def test_newton_schulz_keeps_all_tensors_on_the_gpu() -> None:
    matrices = torch.empty(3, 8, 4, device=GPU)
    assert strangers(lambda: orthogonalize(matrices, 5)) == []
