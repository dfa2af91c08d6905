"""The DeepSpeed engine around a model: its configuration, generated from the recipe, and one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from pydantic import ValidationError

from megatron_iberis.config import Recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.errors import InputError
from megatron_iberis.kernels.attention.flash import take_flash_attention
from megatron_iberis.model.compilation import compile_layers
from megatron_iberis.model.iberis import Iberis
from megatron_iberis.model.initialization import InitialWeights, build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.third_party import deepspeed_starting
from megatron_iberis.parallel.topology import DeepSpeedTopology
from megatron_iberis.resilience.heartbeat import Heartbeat
from megatron_iberis.sharding.exchange import connect
from megatron_iberis.sharding.layout import fill_pieces, flat_layout
from megatron_iberis.sharding.state import TrainingState
from megatron_iberis.training.objectives import Figures, NextToken, Objective
from megatron_iberis.training.optimizer import IberisOptimizer
from megatron_iberis.training.schedule import lr_multiplier, muon_momentum

NEXT_TOKEN = NextToken()


@dataclass(frozen=True)
class StepResult:
    """What an optimizer step was; the same on all ranks."""

    loss: float
    """The objective's mean over the step; `NextToken`'s is nats a target."""
    gradient_norm: float
    """Global norm of the raw gradient; inf where it is not finite."""
    skipped: bool = False
    """Loss or gradient are not finite, so weights and optimizer state were left exactly as they were."""
    stop: bool = False
    """Some rank was asked to stop."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What else the objective told, as means over the step, which have the loss's divisor."""


class Engine:
    """A model in training: forward, backward, reduction, clip, update, by DeepSpeed, on the recipe's layout.

    `state`: what it trains, for checkpoints.
    weights: full tensors by canonical name to start from; a new model's by default. heartbeat: is told how far
    it gets.
    """

    def __init__(
        self,
        recipe: Recipe,
        groups: ParallelGroups,
        device: torch.device,
        weights: Mapping[str, torch.Tensor] | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.heartbeat = heartbeat or Heartbeat()
        self.recipe, self.groups, self.device = recipe, groups, device
        self.accumulation = recipe.train.accumulation(recipe.model, groups.dp_size)
        model = build_model(recipe.model, groups, recipe.parallel.sequence_parallel, recipe.parallel.recompute)
        take_flash_attention(device, recipe.model.width // recipe.model.heads)
        if recipe.train.compile:
            compile_layers(model)
        model.register_forward_pre_hook(
            lambda *_: self.heartbeat.beat()
        )  # training, validation, sampling: it gets on
        by_name = {shard.name: shard for shard in shards(model)}
        if weights is None:
            weights = InitialWeights(by_name.values(), recipe.train.seed)
        fill_parameters(by_name.values(), weights)
        self.optimizer = IberisOptimizer(by_name.values(), recipe.optimizer, recipe.model.width)
        self.topology = DeepSpeedTopology(groups)
        self.deepspeed = self._start_deepspeed(model)
        layout = flat_layout(self.deepspeed.optimizer, by_name.values())
        replicated = recipe.parallel.zero_stage == 0
        optimizer = self.optimizer
        self.state = TrainingState(layout, optimizer.state, by_name, groups, replicated, optimizer.parts_of)
        self.heartbeat.beat("connecting all ranks")
        connect(device)
        optimizer.bind(self.state, None if replicated else lambda: self.deepspeed.optimizer._global_grad_norm)
        if recipe.train.dtype == "bf16":
            # DeepSpeed made the fp32 master weights from the bf16 ones: give them their full precision.
            with torch.no_grad():
                for flat in layout:
                    fill_pieces(flat.tensor, flat.pieces, by_name, weights)

    def _start_deepspeed(self, model: Iberis) -> Any:
        import deepspeed

        try:
            with deepspeed_starting():
                engine, *_ = deepspeed.initialize(
                    model=model,
                    optimizer=self.optimizer,
                    config=deepspeed_config(self.recipe, self.groups),
                    mpu=self.topology,
                    dist_init_required=False,
                )
        except ValidationError as error:
            raise _refused(error) from None
        if hasattr(engine.optimizer, "fp32_groups_gradients_flat"):
            # bf16 at stage 1: sums are flat already. Each is reduced where it is, not copied to a bucket and back.
            engine.allreduce_gradients = partial(engine.allreduce_gradients, bucket_size=0)
        return engine

    @property
    def model(self) -> Any:
        """The module inside, for evaluation and sampling."""
        return self.deepspeed.module

    def step(
        self,
        step: int,
        batches: Iterable[Batch],
        objective: Objective = NEXT_TOKEN,
        stop: Callable[[], bool] = lambda: False,
    ) -> StepResult:
        """One optimizer step over `accumulation` micro-batches. stop: whether this rank was asked to stop.

        Loss and figures are means over the whole step, on all ranks, whatever the spread over micro-batches: the
        objective's sums over its counts. DeepSpeed averages over micro-batches and ranks, so each gets its sum times
        their number. Where nothing counts, nothing is changed.
        """
        config = self.recipe.optimizer
        steps = self.recipe.train.steps
        self.optimizer.set_schedule(lr_multiplier(step, steps, config), muon_momentum(step, config))
        micro_batches = list(batches)
        count = self._counted(sum(objective.count(batch) for batch in micro_batches))
        nothing, count = count <= 0, count if count > 0 else 1.0
        share = self.accumulation * self.groups.dp_cp_size / count
        sums = _Sums(self.device)
        self.deepspeed.train()
        self.heartbeat.beat("forward and backward")
        for batch in micro_batches:
            loss, figures = objective(self.deepspeed, batch.to(self.device))
            sums.add(loss, figures)
            self.deepspeed.backward(loss * share)
            if self.deepspeed.is_gradient_accumulation_boundary():
                mean, means, stopping = self._agreed(sums, count, stop())
                self.heartbeat.beat("optimizer")
                norm = self._start_update(mean, nothing)
            self.deepspeed.step()
        return StepResult(mean, norm(), not _are_finite(mean, norm()), stopping, means)

    def _counted(self, own: float) -> float:
        """What counts of the whole step, by the hosts alone: the device goes on meanwhile."""
        total = torch.tensor(own, dtype=torch.float64)
        torch.distributed.all_reduce(total, group=self.groups.dp_host)
        return float(total.numpy())

    def _agreed(self, sums: _Sums, count: float, stop: bool) -> tuple[float, dict[str, float], bool]:
        """Means of loss and figures, and whether some rank was asked to stop: over all ranks, so that all agree.

        One wait for the device, for all of them.
        """
        names = sorted(sums.figures)
        values = [sums.loss, *(sums.figures[name] for name in names), float(stop)]
        total = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device) for v in values])
        torch.distributed.all_reduce(total)
        loss, *figures, stops = total.tolist()
        same = self.groups.tp_size * self.groups.cp_size  # ranks that have the sums of one batch
        return loss / same / count, {n: f / same / count for n, f in zip(names, figures, strict=True)}, stops > 0

    def _start_update(self, loss: float, nothing: bool) -> Callable[[], float]:
        """Tells the optimizer whether it may step; returns what tells the raw gradient's norm once DeepSpeed has it.

        The norm is read once: with ZeRO it is DeepSpeed's, as it stands when its update begins.
        """
        norm = self._clip_without_zero() if self.recipe.parallel.zero_stage == 0 else cache(self._norm_of_deepspeed)
        # Muon would take a step of full size with no gradient, by its momentum alone.
        self.optimizer.should_step = lambda: not nothing and _are_finite(loss, norm())
        return norm

    def _norm_of_deepspeed(self) -> float:
        norm = float(self.deepspeed.optimizer._global_grad_norm)
        return norm if norm >= 0 else math.inf  # DeepSpeed's sign for "not finite" is -1

    def _clip_without_zero(self) -> Callable[[], float]:
        """Without ZeRO, DeepSpeed clips but doesn't tell the norm: do it here."""
        from deepspeed.runtime.utils import clip_grad_norm_

        limit = self.recipe.optimizer.clip or float("inf")
        norm = float(clip_grad_norm_(self.deepspeed.module.parameters(), limit, mpu=self.topology))
        return lambda: norm


def _are_finite(*values: float) -> bool:
    return all(map(math.isfinite, values))


class _Sums:
    """Of loss and figures over this rank's micro-batches, left on the device until all of them are done."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.figures: dict[str, torch.Tensor | float] = {}

    def add(self, loss: torch.Tensor, figures: Figures) -> None:
        self.loss += loss.detach()
        for name, value in figures.items():
            value = value.detach() if isinstance(value, torch.Tensor) else value
            self.figures[name] = self.figures.get(name, 0.0) + value


def deepspeed_config(recipe: Recipe, groups: ParallelGroups) -> dict[str, Any]:
    """DeepSpeed's JSON for the recipe, with the recipe's [deepspeed] table laid over it.

    Its data-parallel ranks are our replicas: it counts context-parallel ranks' batches as different ones.
    """
    train, stage = recipe.train, recipe.parallel.zero_stage
    accumulation = train.accumulation(recipe.model, groups.dp_size)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": train.device_batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": train.device_batch * accumulation * groups.dp_cp_size,
        "gradient_clipping": 0.0,  # the optimizer's: DeepSpeed would wait for the device in every group
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,  # "untested" is every optimizer that is not DeepSpeed's own
        "zero_force_ds_cpu_optimizer": False,  # nor does offloading need DeepSpeed's own
        # Norms that are not finite are refused here; to look for them in between is one more wait for the device.
        # A parameter's gradient goes into the fp32 sums at once, and is not kept beside them.
        "bf16": {"enabled": train.dtype == "bf16", "check_grad_overflow": False, "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "steps_per_print": None,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device before and after every step
    }
    return _overlay(config, recipe.deepspeed)


def _refused(error: ValidationError) -> InputError:
    """In one sentence what DeepSpeed says in a page."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    return InputError(
        f"DeepSpeed refuses {name} = {first['input']!r} in the [deepspeed] table "
        f"({first['msg'][0].lower()}{first['msg'][1:]}): correct it, or leave it out."
    )


def _overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _overlay(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged
