"""Section golden: logits, loss, gradients and training steps equal the golden vectors, in fp32, with TF32 off.

Vectors and tolerances are those of tests/model/test_golden.py and tests/training/test_trajectories.py.
"""

from __future__ import annotations

import torch

from benchmarks.gpu.record import Record, largest
from benchmarks.gpu.scale import Scale
from megatron_iberis.model.initialization import build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.parallel.start import start_process_group
from tests.support import golden_runs
from tests.support.golden_cases import model_config, tensors
from tests.support.ranks import groups_of

LIMITS = {"logits": 1e-4, "loss": 5e-6, "gradients": 5e-5}
"""Largest absolute difference; absolute; largest relative norm of a parameter's difference."""
TRAJECTORY_LIMIT = 1e-5


def run(scale: Scale, record: Record) -> None:
    """Checks the golden cases, then the trajectories."""
    device = start_process_group(timeout_minutes=5)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for case in scale.cases:
        record.begin(case)
        for what, found in deviations(case, device).items():
            record.check(f"{case}: {what}", found, LIMITS[what])
    for folder, variant, name, steps in scale.trajectories:
        record.begin(f"{folder} {variant} {name}")
        results = golden_runs.run(folder, variant, name, 4, {"zero_stage": 0}, steps, str(device))
        start = "zeros" if name.endswith("zeroinit") else "full"
        golden = golden_runs.trajectory(folder, variant)[name]["loss"][:steps]
        found = largest(abs(step.loss - wanted) for step, wanted in zip(results, golden, strict=True))
        record.check(f"{folder} {variant} from {start}: losses of {steps} steps", found, TRAJECTORY_LIMIT)


def deviations(case: str, device: torch.device) -> dict[str, float]:
    """How far logits, mean loss and the worst gradient are from a golden case."""
    model = build_model(model_config(case), groups_of(1))
    fill_parameters(shards(model), tensors(case, "weights"))
    model.to(device)
    batch = {name: tensor.to(device) for name, tensor in tensors(case, "batch").items()}
    with torch.no_grad():
        logits = model(batch["input_ids"])
    loss = model(batch["input_ids"], batch["targets"]) / (batch["targets"] >= 0).sum()
    loss.backward()
    wanted = {name: tensor.to(device) for name, tensor in tensors(case, "grads").items()}
    apart = {shard.name: shard.parameter.grad - wanted[shard.name] for shard in shards(model)}
    return {
        "logits": (logits - batch["logits"]).abs().max().item(),
        "loss": (loss - batch["loss"]).abs().item(),
        "gradients": largest((apart[name].norm() / want.norm()).item() for name, want in wanted.items()),
    }
