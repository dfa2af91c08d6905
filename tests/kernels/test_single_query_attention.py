"""`single_query_attention` is each request's attention to its own rows, whatever the requests beside it."""

from __future__ import annotations

import pytest
import torch

from megatron_iberis.kernels.attention import native, portable, reference, single_query_attention

SHAPES = [(1, 1, 64), (4, 2, 128), (6, 3, 16), (6, 1, 24), (3, 3, 7), (2, 2, 1)]  # H, KV, D
STARTS, LENGTHS = [0, 1, 100, 165, 300], [1, 65, 64, 130, 257]
ROWS = 600
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
FORMS = [native.single_query_attention, portable.single_query_attention]


def inputs(heads: int, kv_heads: int, size: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Queries, and keys and values that are NaN where no request looks."""
    generator = torch.Generator().manual_seed(0)
    of = [(len(STARTS), heads, size), (ROWS, kv_heads, size), (ROWS, kv_heads, size)]
    q, keys, values = (torch.randn(shape, generator=generator) for shape in of)
    seen = torch.zeros(ROWS, dtype=torch.bool)
    for start, length in zip(STARTS, LENGTHS, strict=True):
        seen[start : start + length] = True
    keys[~seen] = values[~seen] = float("nan")
    return [x.to(dtype) for x in (3 * q, keys, values)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)
def test_values_equal_reference(heads: int, kv_heads: int, size: int, form: object, dtype: torch.dtype) -> None:
    tensors = inputs(heads, kv_heads, size, dtype)
    found = form(*tensors, STARTS, LENGTHS)  # type: ignore[operator]
    assert found.dtype == dtype
    expected = reference.single_query_attention(*(x.double() for x in tensors), STARTS, LENGTHS)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)
def test_plain_instructions_equal_the_best_up_to_rounding(
    heads: int, kv_heads: int, size: int, dtype: torch.dtype
) -> None:
    tensors = inputs(heads, kv_heads, size, dtype)
    plain = native.single_query_attention(*tensors, STARTS, LENGTHS, fast=False)
    best = native.single_query_attention(*tensors, STARTS, LENGTHS)
    torch.testing.assert_close(plain, best, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_request_gives_the_same_bits_alone_and_among_others_in_any_number_of_threads(dtype: torch.dtype) -> None:
    q, keys, values = inputs(6, 3, 64, dtype)
    together = native.single_query_attention(q, keys, values, STARTS, LENGTHS)
    for i, place in enumerate(zip(STARTS, LENGTHS, strict=True)):
        alone = native.single_query_attention(q[i : i + 1], keys, values, *([x] for x in place))
        assert torch.equal(alone[0], together[i])
    for threads in (1, 2, 5) * 5:
        found = native.single_query_attention(q, keys, values, STARTS, LENGTHS, threads)
        assert torch.equal(found, together)


@pytest.mark.parametrize("size", [1e-30, 1e3, 1e6])
def test_small_and_large_scores_are_weighed_right(size: float) -> None:
    """Also those of which all but one chunk's weights vanish."""
    q, keys, values = inputs(4, 2, 16, torch.float32)
    found = single_query_attention(q, keys * size, values, STARTS, LENGTHS)
    expected = reference.single_query_attention(*(x.double() for x in (q, keys * size, values)), STARTS, LENGTHS)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * max(1.0, size / 100))


def test_equal_keys_give_the_mean_of_the_values() -> None:
    values = torch.arange(200.0).view(200, 1, 1).expand(200, 1, 8).contiguous()
    found = single_query_attention(torch.ones(1, 1, 8), torch.ones(200, 1, 8), values, [20], [101])
    torch.testing.assert_close(found, torch.full((1, 1, 8), 70.0))


def test_one_nan_key_makes_its_request_nan_and_no_other() -> None:
    q, keys, values = inputs(2, 2, 16, torch.float32)
    keys[200] = float("nan")  # of the fourth request, in a chunk that is not its last
    found = single_query_attention(q, keys, values, STARTS, LENGTHS)
    assert found[3].isnan().all()
    assert found[[0, 1, 2, 4]].isfinite().all()


def test_no_requests_give_nothing() -> None:
    q, keys, values = inputs(2, 2, 16, torch.float32)
    assert single_query_attention(q[:0], keys, values, [], []).shape == (0, 2, 16)


def test_wrong_arguments_are_told() -> None:
    q, keys, values = inputs(2, 2, 16, torch.float32)
    for starts, lengths in (([-1] * 5, LENGTHS), (STARTS, [0] * 5), ([ROWS - 1] * 5, [2] * 5)):
        with pytest.raises(ValueError, match="must be 1 at least, and lie inside"):
            single_query_attention(q, keys, values, starts, lengths)
    with pytest.raises(ValueError, match="KV a divisor of H"):
        single_query_attention(q, keys, values, STARTS[:4], LENGTHS[:4])
    with pytest.raises(ValueError, match="KV a divisor of H"):
        single_query_attention(q[:, :1], keys, values, STARTS, LENGTHS)
