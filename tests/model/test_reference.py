"""The plain-PyTorch model is Saint Iberis exactly: it can stand as oracle where there are no golden vectors."""

from __future__ import annotations

import pytest
import torch

from megatron_iberis.model.reference import ReferenceIberis
from tests.support.golden_cases import CASES, model_config, tensors


@pytest.mark.parametrize("case", CASES)
def test_reference_logits_loss_and_gradients_equal_golden(case: str) -> None:
    golden, gradients = tensors(case, "batch"), tensors(case, "grads")
    model = ReferenceIberis(model_config(case))
    model.load_state_dict(tensors(case, "weights"))

    logits = model(golden["input_ids"])
    loss = model(golden["input_ids"], golden["targets"]) / (golden["targets"] >= 0).sum()
    loss.backward()

    assert (logits - golden["logits"]).abs().max() <= 1e-4
    assert (loss - golden["loss"]).abs() <= 5e-6
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert (parameter.grad - gradients[name]).norm() <= 5e-5 * gradients[name].norm(), name


def test_reference_has_upstream_names_and_nothing_else() -> None:
    for case in CASES:
        assert ReferenceIberis(model_config(case)).state_dict().keys() == tensors(case, "weights").keys()


def test_reference_loss_is_the_sum_over_counted_targets() -> None:
    case = "jp_gqa"
    golden = tensors(case, "batch")
    model = ReferenceIberis(model_config(case))
    model.load_state_dict(tensors(case, "weights"))
    with torch.no_grad():
        likelihood = model(golden["input_ids"]).log_softmax(-1)
        counted = golden["targets"] >= 0
        expected = -likelihood.gather(-1, golden["targets"].clamp(min=0).unsqueeze(-1)).squeeze(-1)[counted].sum()
        torch.testing.assert_close(model(golden["input_ids"], golden["targets"]), expected)
