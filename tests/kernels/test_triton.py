"""The kernels of a GPU give what fp64 gives; without one, under Triton's interpreter (tests/conftest.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from megatron_iberis.kernels.linear_cross_entropy import chunked, reference
from megatron_iberis.kernels.short_convolution import portable
from tests.kernels.test_mixing import HEADS, NORMS, WIDTH, inputs, ring, value_and_gradients, wide_tensors_moved
from tests.kernels.test_softcap_pass import RANGE, SOFTCAP, exact
from tests.kernels.test_softcap_pass import inputs as logits_and_targets

pytest.importorskip("triton", reason="Triton comes with torch for CUDA, and with the extra dev on Linux")
from megatron_iberis.kernels.linear_cross_entropy import triton as loss
from megatron_iberis.kernels.short_convolution import triton as mixing

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("rows", "vocab", "padding"), [(1, 1, 0), (3, 100, 7), (2, 4096, 0), (2, 5000, 950)])
def test_pass_equals_fp64(rows: int, vocab: int, padding: int) -> None:
    """One block and several, one of them nothing but padding."""
    logits, targets = (x.to(DEVICE) for x in logits_and_targets(rows, vocab))
    expected = exact(logits, targets, padding)
    quiet = loss.softcap_pass(logits, targets, SOFTCAP, RANGE, padding, False)
    found = [*loss.softcap_pass(logits, targets, SOFTCAP, RANGE, padding, True), logits]
    assert torch.equal(quiet[0], found[0])
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=5e-6, atol=1e-30)


def test_pass_in_bf16_rounds_only_the_result() -> None:
    logits, targets = (x.to(DEVICE) for x in logits_and_targets(3, 300, torch.bfloat16))
    expected = exact(logits, targets, 3)
    found = loss.softcap_pass(logits, targets, SOFTCAP, RANGE, 3, True)
    torch.testing.assert_close([x.double() for x in found], expected[:2], rtol=5e-6, atol=0)
    torch.testing.assert_close(logits.double(), expected[2], rtol=2**-7, atol=1e-30)  # the interpreter cuts off


def test_a_nan_among_the_logits_is_seen() -> None:
    logits, targets = (x.to(DEVICE) for x in logits_and_targets(2, 50))
    logits[1, 3] = torch.nan
    assert loss.softcap_pass(logits, targets, SOFTCAP, RANGE, 0, True)[0].isnan().tolist() == [False, True]


def test_loss_over_chunks_with_weights_and_ignored_targets_equals_fp64(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CPU_CHUNK_BYTES", "GPU_CHUNK_BYTES"):
        monkeypatch.setattr(chunked, name, 1)  # 64 rows a chunk, the least
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 24, generator=generator, device=DEVICE).requires_grad_() for n in (70, 50))
    targets = torch.randint(-1, 50, (70,), generator=generator).to(DEVICE)
    weights = torch.randn(70, generator=generator).to(DEVICE)
    found = chunked.linear_cross_entropy(
        loss.softcap_pass, hidden, weight, targets, SOFTCAP, vocab_start=0, padding=0, group=None, weights=weights
    )
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = reference.linear_cross_entropy(*wide, targets, SOFTCAP, weights.double())
    gradients = torch.autograd.grad(found, (hidden, weight)), torch.autograd.grad(expected, wide)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5)
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5)


@pytest.fixture
def _short_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "TILE", 64)


@pytest.mark.usefixtures("_short_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm_eps", NORMS)
@pytest.mark.parametrize(
    ("time", "kernel", "heads", "size", "past", "documents"),
    [
        pytest.param(9, 3, 2, 8, False, False, id="two-tiles"),
        pytest.param(10, 3, 1, 5, True, True, id="odd-head-after-a-chunk-with-documents"),
        pytest.param(2, 4, 1, 8, True, False, id="shorter-than-the-kernel"),
        pytest.param(3, 1, 2, 4, False, True, id="one-tap"),
    ],
)
def test_mixing_equals_fp64(
    time: int,
    kernel: int,
    heads: int,
    size: int,
    past: bool,
    documents: bool,
    norm_eps: float | None,
    dtype: torch.dtype,
) -> None:
    tensors, positions = inputs(time, kernel, heads, size, past, documents)
    rounded = [x.to(dtype) for x in tensors]
    wide = [x.double() for x in rounded]
    expected = value_and_gradients(portable.gated_short_convolution, wide, positions, norm_eps)
    there = partial(torch.Tensor.to, device=DEVICE)
    found = value_and_gradients(
        mixing.gated_short_convolution,
        [there(x) for x in rounded],
        None if positions is None else there(positions),
        norm_eps,
    )
    for got, want in zip(found, expected, strict=True):
        error = (got.cpu().double() - want).norm()
        roundings = 1 if norm_eps is None else 2  # which the interpreter cuts off
        assert error <= {torch.float32: 1e-6, torch.bfloat16: 5e-3 * roundings}[dtype] * want.norm()


@pytest.mark.usefixtures("_short_tiles")
def test_mixing_of_strided_inputs_and_of_a_neighbour_s_last_steps() -> None:
    tensors, _ = inputs(9, 3, 2, 4, False, False)
    expected = value_and_gradients(ring(portable), tensors, None)
    strided: list[Any] = [x.float().to(DEVICE).transpose(0, 1).contiguous().transpose(0, 1) for x in tensors[:4]]
    found = value_and_gradients(ring(mixing), [*strided, tensors[4].float().to(DEVICE)], None)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got.cpu().double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm_eps", NORMS)
def test_at_most_three_and_a_half_wide_tensors_are_moved_forward_and_seven_backward(norm_eps: float | None) -> None:
    steps = mixing.TILE * HEADS // WIDTH
    forward, backward = wide_tensors_moved(mixing.gated_short_convolution, steps, norm_eps)
    assert 3 < forward < 3.5
    assert 5 < backward < 7
