"""Documents strung together for a flash-attention kernel are the documents one by one; and which kernel is taken.

The kernel itself needs a GPU. Elsewhere a plain one with its arguments stands in, so that what it is given is seen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_iberis.kernels import attention
from megatron_iberis.kernels.attention import flash, portable, varlen
from tests.kernels.test_attention import ROWS, inputs, value_and_gradients

CUDA = torch.cuda.is_available()


def plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, q_borders: torch.Tensor, k_borders: torch.Tensor,
    most_q: int, most_k: int, *, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """torch.nn.attention.varlen.varlen_attn, sequence by sequence: causal from the end of each."""
    assert window_size == (-1, 0)
    assert enable_gqa == (q.shape[1] != k.shape[1])
    assert q_borders.dtype == k_borders.dtype == torch.int32
    counts, sizes = q_borders.diff(), k_borders.diff()
    assert (int(counts.max()), int(sizes.max())) == (most_q, most_k)
    assert counts.min() > 0
    assert (int(q_borders[-1]), int(k_borders[-1])) == (len(q), len(k))
    parts = zip(q.split(counts.tolist()), k.split(sizes.tolist()), v.split(sizes.tolist()), strict=True)
    return torch.cat([portable.causal_attention(*(x.unsqueeze(1) for x in part)).squeeze(1) for part in parts])


@pytest.mark.parametrize(("lengths", "queries"), ROWS)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_documents_strung_together_are_the_documents_one_by_one(
    monkeypatch: pytest.MonkeyPatch, lengths: list[list[int]], queries: int, kv_heads: int
) -> None:
    dtype = torch.bfloat16 if CUDA else torch.float32
    if not CUDA:
        monkeypatch.setattr(varlen, "kernel", lambda: plain)
    tensors = inputs(sum(lengths[0]), 4, kv_heads, dtype)
    tensors = [x.detach().to("cuda" if CUDA else "cpu").requires_grad_() for x in tensors]

    def by(module: Any) -> Any:
        return lambda q, k, v: module.document_attention(q[-queries:], k, v, lengths)

    found, expected = (value_and_gradients(by(module), tensors) for module in (varlen, portable))
    tolerance = 2e-2 if CUDA else 1e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_half_precision_on_a_gpu_takes_it_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros(4, 1, 1, 8)
    assert not varlen.takes(q)
    assert not varlen.takes(q.bfloat16())
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    assert varlen.takes(q.bfloat16())
    assert not varlen.takes(q)
    assert not varlen.takes(torch.zeros(4, 1, 1, 12, dtype=torch.bfloat16))
    assert varlen.kernel().__name__ == "varlen_attn"
    monkeypatch.setattr(varlen, "document_attention", lambda *given: "by varlen")
    assert attention.document_attention(q.bfloat16(), q, q, [[4]]) == "by varlen"


@pytest.mark.parametrize(
    ("capability", "head", "installed", "wanted"),
    [
        ((9, 0), 128, {"flash_attn_interface", "flash_attn.cute"}, ["FA3", "FA4"]),
        ((9, 0), 64, {"flash_attn_interface", "flash_attn.cute"}, ["FA3"]),
        ((9, 0), 64, {"flash_attn.cute"}, []),
        ((10, 0), 128, {"flash_attn_interface", "flash_attn.cute"}, ["FA4"]),
        ((8, 0), 128, {"flash_attn_interface", "flash_attn.cute"}, []),
        ((9, 0), 128, set(), []),
    ],
)
def test_flash_attention_is_taken_where_it_is_installed_and_fits(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], head: int, installed: set[str], wanted: list[str]
) -> None:
    monkeypatch.setattr(flash, "_installed", lambda module: module in installed)
    assert flash.fitting(capability, head) == wanted


def test_one_that_cannot_be_loaded_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def activate(name: str) -> None:
        if name == "FA3":
            raise AttributeError("a stale wheel")
        taken.append(name)

    monkeypatch.setattr(flash.torch_attention, "activate_flash_attention_impl", activate)
    monkeypatch.setattr(flash, "_installed", lambda module: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert flash.take_flash_attention(torch.device("cuda"), 128) == "FA4"
    assert taken == ["FA4"]
    assert flash.take_flash_attention(torch.device("cuda"), 64) is None
    assert flash.take_flash_attention(torch.device("cpu"), 128) is None
