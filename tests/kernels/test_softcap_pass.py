"""The pass over raw logits gives what fp64 gives, by every implementation; in C++ in any number of threads."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from megatron_iberis import _C
from megatron_iberis.kernels.linear_cross_entropy import native, portable

SOFTCAP, RANGE = 15.0, 30.0
PASSES = [portable.softcap_pass, *(partial(native.softcap_pass, kernel=kernel) for kernel in _C.softcap_kernels())]
NAMES = ["torch", *_C.softcap_kernels()]


def inputs(rows: int, vocab: int, dtype: torch.dtype = torch.float32, size: float = 10.0) -> Any:
    """Logits, and targets of which some lie outside of the row."""
    generator = torch.Generator().manual_seed(rows + vocab)
    logits = torch.randn(rows, vocab, generator=generator) * size
    return logits.to(dtype), torch.randint(-2, vocab + 2, (rows,), generator=generator)


def exact(logits: torch.Tensor, targets: torch.Tensor, padding: int) -> list[torch.Tensor]:
    """Sums, s at the targets and what takes the logits' place, written out in fp64."""
    s = (1 - torch.tanh(logits.double() / SOFTCAP)) / 2
    likelihood = torch.exp(-RANGE * s)
    likelihood[:, logits.shape[1] - padding :] = 0
    here = (targets >= 0) & (targets < logits.shape[1])
    at_target = torch.where(here, s[range(len(s)), torch.where(here, targets, 0)], 0.0)
    return [likelihood.sum(1), at_target, likelihood * s * (1 - s)]


@pytest.mark.parametrize("softcap_pass", PASSES, ids=NAMES)
@pytest.mark.parametrize(("rows", "vocab"), [(1, 1), (3, 7), (5, 16), (4, 33), (2, 1024), (3, 2500)])
@pytest.mark.parametrize("padding", [0, 1, 5])
def test_sums_and_gradients_equal_fp64(softcap_pass: Any, rows: int, vocab: int, padding: int) -> None:
    logits, targets = inputs(rows, vocab)
    padding = min(padding, vocab)
    expected = exact(logits, targets, padding)
    found = [*softcap_pass(logits, targets, SOFTCAP, RANGE, padding, True), logits]
    for got, want in zip(found, expected, strict=True):
        rtol = 3e-5 if softcap_pass is portable.softcap_pass else 5e-6  # torch loses digits of 1 - s
        torch.testing.assert_close(got.double(), want, rtol=rtol, atol=1e-30)


@pytest.mark.parametrize("softcap_pass", PASSES, ids=NAMES)
def test_in_bf16_only_the_result_is_rounded(softcap_pass: Any) -> None:
    logits, targets = inputs(6, 1000, torch.bfloat16)
    expected = exact(logits, targets, 3)
    found = softcap_pass(logits, targets, SOFTCAP, RANGE, 3, True)
    torch.testing.assert_close([x.double() for x in found], expected[:2], rtol=5e-6, atol=0)
    torch.testing.assert_close(logits.double(), expected[2], rtol=2**-8, atol=1e-30)


@pytest.mark.parametrize("softcap_pass", PASSES, ids=NAMES)
def test_without_gradient_the_logits_stay(softcap_pass: Any) -> None:
    logits, targets = inputs(3, 100)
    kept = logits.clone()
    quiet = softcap_pass(logits, targets, SOFTCAP, RANGE, 2, False)
    assert torch.equal(logits, kept)
    loud = softcap_pass(logits, targets, SOFTCAP, RANGE, 2, True)
    assert all(torch.equal(one, other) for one, other in zip(quiet, loud, strict=True))


@pytest.mark.parametrize("softcap_pass", PASSES, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_logit_that_is_not_finite_spoils_its_row_alone(softcap_pass: Any, dtype: torch.dtype) -> None:
    """NaN must be seen in the loss; infinity is where the cap ends."""
    logits, targets = inputs(4, 50, dtype)
    logits[1, 49], logits[2, 3], logits[3, 4] = torch.nan, torch.inf, -torch.inf
    total, _ = softcap_pass(logits, targets, SOFTCAP, RANGE, 0, True)
    assert total.isnan().tolist() == [False, True, False, False]
    assert logits.isnan().sum(1).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_and_other_rows_change_no_bit(dtype: torch.dtype) -> None:
    logits, targets = inputs(70, 1500, dtype)
    alone = [logits[i : i + 1].clone() for i in range(70)]
    sums = [native.softcap_pass(row, targets[i : i + 1], SOFTCAP, RANGE, 0, True)[0] for i, row in enumerate(alone)]
    for threads in (1, 2, 5):
        together = logits.clone()
        total, _ = native.softcap_pass(together, targets, SOFTCAP, RANGE, 0, True, threads)
        assert torch.equal(total, torch.cat(sums))
        assert torch.equal(together, torch.cat(alone))


def test_wrong_arguments_are_told() -> None:
    logits, targets = inputs(3, 10)
    with pytest.raises(ValueError, match=r"logits must be \[N, V\]"):
        native.softcap_pass(logits, targets[:2], SOFTCAP, RANGE, 0, True)
    with pytest.raises(ValueError, match="padding at most V"):
        native.softcap_pass(logits, targets, SOFTCAP, RANGE, 11, True)
    with pytest.raises(ValueError, match='no kernel "sse"'):
        native.softcap_pass(logits, targets, SOFTCAP, RANGE, 0, True, kernel="sse")
