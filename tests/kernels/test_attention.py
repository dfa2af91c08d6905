"""Attention is causal attention: equal to the written-out reference, blind to the future and to other documents."""

from __future__ import annotations

import itertools

import pytest
import torch

from megatron_iberis.kernels.attention import causal_attention, document_attention, reference


def inputs(
    time: int, heads: int, kv_heads: int, dtype: torch.dtype = torch.float32, size: int = 16
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(time, 2, n, size, generator=generator).to(dtype).requires_grad_()
        for n in (heads, kv_heads, kv_heads)
    ]


def value_and_gradients(function: object, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    out = function(*tensors)  # type: ignore[operator]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad(out, tensors, weights)]


SHAPES = [(1, 1, 1), (7, 4, 4), (33, 4, 2), (64, 6, 1), (130, 6, 3)]  # T, H, KV


@pytest.mark.parametrize(("time", "heads", "kv_heads"), SHAPES)
def test_values_and_gradients_equal_reference(time: int, heads: int, kv_heads: int) -> None:
    tensors = inputs(time, heads, kv_heads)
    found = value_and_gradients(causal_attention, tensors)
    expected = value_and_gradients(reference.causal_attention, tensors)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("time", "heads", "kv_heads"), SHAPES)
def test_bf16_is_near_reference_in_fp32(time: int, heads: int, kv_heads: int) -> None:
    tensors = inputs(time, heads, kv_heads, torch.bfloat16)
    found = value_and_gradients(causal_attention, tensors)
    expected = value_and_gradients(reference.causal_attention, [x.detach().float().requires_grad_() for x in tensors])
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.float() - want).norm() <= 0.02 * want.norm() + 1e-3


@pytest.mark.parametrize("changed", [0, 1, 9, 19])
def test_a_token_changes_nothing_before_it(changed: int) -> None:
    tensors = [x.detach() for x in inputs(20, 4, 2)]
    before = causal_attention(*tensors)
    for x in tensors:
        x[changed] += 1.0
    after = causal_attention(*tensors)
    torch.testing.assert_close(after[:changed], before[:changed], rtol=0, atol=1e-6)
    assert (after[changed:] != before[changed:]).flatten(1).any(1).all()


def test_consecutive_query_heads_share_a_key_value_head() -> None:
    q, k, v = (x.detach() for x in inputs(8, 4, 2))
    shared = causal_attention(q, k, v)
    repeated = causal_attention(q, *(x[:, :, [0, 0, 1, 1]] for x in (k, v)))
    torch.testing.assert_close(shared, repeated, rtol=1e-5, atol=1e-6)


ROWS = [  # lengths of the documents of two rows, and how many of the last places ask
    ([[7], [7]], 7),
    ([[1, 2, 4], [6, 1]], 7),
    ([[1, 1, 1, 1], [2, 2]], 4),
    ([[20, 13], [5, 5, 23]], 10),
    ([[20, 13], [32, 1]], 13),
]


@pytest.mark.parametrize(("lengths", "queries"), ROWS)
def test_documents_do_not_attend_to_each_other(lengths: list[list[int]], queries: int) -> None:
    q, k, v = inputs(sum(lengths[0]), 4, 2)
    numbers = torch.tensor([[d for d, n in enumerate(row) for _ in range(n)] for row in lengths])

    def found(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return document_attention(q[-queries:], k, v, lengths)

    def expected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return reference.causal_attention(q[-queries:], k, v, numbers)

    torch.testing.assert_close(
        value_and_gradients(found, [q, k, v]), value_and_gradients(expected, [q, k, v]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("lengths", [[20], [7, 13], [1, 1, 18], [1] * 20], ids=str)
def test_chunks_that_are_given_the_keys_and_values_before_them_equal_the_whole(
    lengths: list[int], heads: int, kv_heads: int
) -> None:
    tensors = inputs(20, heads, kv_heads)

    def found(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        ends = itertools.accumulate(lengths)
        return torch.cat([causal_attention(q[e - n : e], k[:e], v[:e]) for n, e in zip(lengths, ends, strict=True)])

    torch.testing.assert_close(
        value_and_gradients(found, tensors),
        value_and_gradients(reference.causal_attention, tensors),
        rtol=1e-5,
        atol=1e-5,
    )
