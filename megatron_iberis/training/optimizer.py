"""Muon for the matrices inside the blocks, AdamW for embedding, head and convolutions, under any ZeRO stage.

Or AdamW for all, at one rate: Muon's steps have full size however small the gradient is, which is wrong where a
gradient is meant to fade away.

DeepSpeed reduces, takes the global norm of the raw gradients, by which they are clipped here without waiting for the
device, and hands over flat fp32 partitions. The elementwise parts of both optimizers work on those as they are; what
needs whole matrices goes through an `Exchange`. DeepSpeed's own Muon is not used: it clips after the
orthogonalisation, and takes a tensor-parallel shard for a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.optim.adamw import adamw

from megatron_iberis.config import OptimizerConfig
from megatron_iberis.model.parameters import Kind, Shard
from megatron_iberis.sharding.state import ADAMW, MUON, TrainingState, muon_for_matrices
from megatron_iberis.training.muon import muon_directions
from megatron_iberis.training.newton_schulz import flops, precision


class IberisOptimizer(torch.optim.Optimizer):
    """One group a kind of parameter: `matrix` (Muon, where config.kind is that), `embedding`, `unembedding`,
    `convolution` (AdamW).

    Build it over the model's parameters, give it to `deepspeed.initialize`, then `bind` it to the layout that
    DeepSpeed made. State by flat tensor: `momentum` (Muon), or `mean`, `square` and `step` (AdamW).
    """

    def __init__(self, shards: Iterable[Shard], config: OptimizerConfig, width: int) -> None:
        self.config = config
        self.shards = {shard.name: shard for shard in shards}
        scale = math.sqrt(768 / width)
        rates = {
            "matrix": config.matrix_lr,
            "embedding": config.embedding_lr * scale,
            "unembedding": config.unembedding_lr * scale,
            "convolution": config.matrix_lr * scale,
        }
        if config.kind == "adamw":
            rates = dict.fromkeys(rates, config.lr)
        groups = []
        for kind, rate in rates.items():
            parameters = [s.parameter for s in self.shards.values() if s.kind == kind]
            if parameters:
                groups.append({"params": parameters, "kind": kind, "peak_lr": rate, "lr": rate, "momentum": 0.0})
        super().__init__(groups, {})
        self._groups = list(self.param_groups)
        self.should_step: Callable[[], bool] = lambda: True
        """Asked when DeepSpeed has reduced: False leaves weights and state exactly as they are."""
        self._precision = precision(config)
        self._cost = partial(flops, steps=config.newton_schulz_steps, dtype=self._precision)
        self._training_state: TrainingState | None = None
        self._raw_norm: Callable[[], torch.Tensor] | None = None

    def parts_of(self, kind: Kind) -> tuple[str, ...]:
        """The names of the state that a kind of parameter has; AdamW has a `step` besides."""
        return muon_for_matrices(kind) if self.config.kind == "muon" else ADAMW

    def bind(self, state: TrainingState, raw_norm: Callable[[], torch.Tensor] | None = None) -> None:
        """Tells which pieces of which matrices the tensors hold that `step` will meet.

        raw_norm: gives the global norm of the gradients, a scalar, where they are to be clipped by it.
        """
        self._training_state, self._raw_norm = state, raw_norm

    def set_schedule(self, multiplier: float, momentum: float) -> None:
        """Sets the rates to `multiplier` times their peak, times the recipe's fraction, and Muon's momentum."""
        for group in self._groups:
            group["lr"] = group["peak_lr"] * self.config.lr_fraction * multiplier
            group["momentum"] = momentum

    def learning_rates(self) -> dict[str, float]:
        """The current rate of each kind of parameter."""
        return {group["kind"]: group["lr"] for group in self._groups}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of whatever groups and tensors DeepSpeed has put into `param_groups` for this call."""
        if not self.should_step():
            return
        for group in self.param_groups:
            if not group["params"]:
                continue  # stage 3 fills one group at a time
            self._clip(group["params"])
            if self.parts_of(group["kind"]) == MUON:
                self._muon(group)
            else:
                self._adamw(group)

    def _clip(self, tensors: list[torch.Tensor]) -> None:
        """Scales the gradients so that the global norm is the limit at most; a factor of 1 changes no bit."""
        if self._raw_norm is None or not self.config.clip:
            return
        norm = torch.as_tensor(self._raw_norm())
        factor = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
        for p in tensors:
            if p.grad is not None:
                p.grad.mul_(factor.to(p.device))

    def _muon(self, group: dict[str, Any]) -> None:
        assert self._training_state, "bind() comes before the first step"
        tensors: list[torch.Tensor] = group["params"]
        momentum, directions = group["momentum"], []
        for p in tensors:
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            buffer = state["momentum"].lerp_(gradient, 1.0 - momentum)
            directions.append(gradient.lerp_(buffer, momentum))  # Nesterov, in the gradient's own memory
        muon_directions(
            directions,
            self._training_state.exchange(tensors, self._cost),
            self.config.newton_schulz_steps,
            self._precision,
        )
        for p, direction in zip(tensors, directions, strict=True):
            p.add_(direction, alpha=-group["lr"])

    def _adamw(self, group: dict[str, Any]) -> None:
        tensors = [p for p in group["params"] if p.grad is not None]
        for p in tensors:
            state = self.state[p]
            if not state:
                step = torch.zeros((), device=p.device)  # where the fused kernel reads it
                state.update(mean=torch.zeros_like(p), square=torch.zeros_like(p), step=step)
        states = [self.state[p] for p in tensors]
        adamw(
            tensors,
            [p.grad for p in tensors],
            [s["mean"] for s in states],
            [s["square"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=self.config.beta1,
            beta2=self.config.beta2,
            lr=group["lr"],
            weight_decay=self.config.weight_decay,
            eps=self.config.eps,
            maximize=False,
        )
