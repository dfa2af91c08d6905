"""Training as upstream does it in one process, in plain torch: the baseline of a whole step.

* The reference model, Muon for the matrices of the blocks, one by one, fused AdamW for the rest, global clip,
  schedules of the base training.
* fp32 is what upstream does on a CPU. bf16 is what it does on a GPU: fp32 weights, but for the embedding, under bf16
  autocast.
* Newton-Schulz is in bf16 in both, unless the optimizer's configuration says "fp32".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from benchmarks.cpu.shapes import Dtype
from megatron_iberis.config import ModelConfig, OptimizerConfig
from megatron_iberis.model.reference import ReferenceIberis
from megatron_iberis.training.schedule import lr_multiplier, muon_momentum

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(matrix: torch.Tensor, steps: int, dtype: torch.dtype) -> torch.Tensor:
    """Roughly the nearest semi-orthogonal matrix, by `steps` of the quintic in `dtype`. [rows, cols] -> the same."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).to(dtype)
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, Nesterov's look ahead, orthogonalised: p -= lr sqrt(max(1, rows / cols)) x direction."""

    def __init__(self, matrices: Iterable[torch.Tensor], lr: float, steps: int, dtype: torch.dtype) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": 0.95})
        self._steps, self._dtype = steps, dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["buffer"] = torch.zeros_like(p)
                buffer = state["buffer"].lerp_(p.grad, 1.0 - group["momentum"])
                direction = newton_schulz(p.grad.lerp_(buffer, group["momentum"]), self._steps, self._dtype)
                p.add_(direction, alpha=-group["lr"] * math.sqrt(max(1.0, p.shape[0] / p.shape[1])))


class UpstreamTraining:
    """A model in training. weights: full tensors by name to start from; torch's own start by default.

    config: resolved. steps: of the whole run, for the schedules.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: OptimizerConfig,
        steps: int,
        dtype: Dtype,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.config, self.steps, self.bf16 = config, steps, dtype == "bf16"
        self.model = ReferenceIberis(model)
        if weights is not None:
            self.model.load_state_dict(dict(weights))
        if self.bf16:
            self.model.transformer.wte.bfloat16()
        blocks = list(self.model.transformer.h.parameters())
        scale = math.sqrt(768 / model.width)
        newton_schulz_dtype = torch.float32 if config.newton_schulz_dtype == "fp32" else torch.bfloat16
        matrices = [p for p in blocks if p.dim() == 2]
        self.muon = Muon(matrices, config.matrix_lr, config.newton_schulz_steps, newton_schulz_dtype)
        groups = [
            {"params": [self.model.lm_head.weight], "lr": config.unembedding_lr * scale},
            {"params": [self.model.transformer.wte.weight], "lr": config.embedding_lr * scale},
            {"params": [p for p in blocks if p.dim() != 2], "lr": config.matrix_lr * scale},
        ]
        betas = (config.beta1, config.beta2)
        self.adamw = torch.optim.AdamW(groups, betas=betas, eps=config.eps, weight_decay=0.0, fused=True)
        for group in (*self.muon.param_groups, *self.adamw.param_groups):
            group["peak_lr"] = group["lr"]

    def step(self, number: int, tokens: torch.Tensor, targets: torch.Tensor) -> float:
        """One optimizer step on one micro-batch, [B, T] each; the mean loss in nats a target."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.model(tokens, targets)
        loss = loss / (targets >= 0).sum()
        loss.backward()
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        multiplier = lr_multiplier(number, self.steps, self.config)
        for group in (*self.muon.param_groups, *self.adamw.param_groups):
            group["lr"] = group["peak_lr"] * multiplier
        self.muon.param_groups[0]["momentum"] = muon_momentum(number, self.config)
        self.muon.step()
        self.adamw.step()
        self.model.zero_grad(set_to_none=True)
        return loss.item()
