"""The DeepSpeed engine around a model: its configuration, generated from the recipe, and one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError

from megatron_iberis.config import Recipe
from megatron_iberis.data.batches import Batch
from megatron_iberis.errors import InputError
from megatron_iberis.model.iberis import Iberis
from megatron_iberis.model.initialization import InitialWeights, build_model, fill_parameters
from megatron_iberis.model.parameters import shards
from megatron_iberis.parallel.groups import ParallelGroups
from megatron_iberis.parallel.third_party import deepspeed_starting
from megatron_iberis.parallel.topology import DeepSpeedTopology
from megatron_iberis.resilience.heartbeat import Heartbeat
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
        self.state = TrainingState(layout, self.optimizer.state, by_name, groups, recipe.parallel.zero_stage == 0)
        self.optimizer.bind(self.state)
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
        (count,) = self._sum([sum(objective.count(b) for b in micro_batches)], self.groups.dp)
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
                norm = self._clip_without_zero()
                finite = partial(self._is_finite, mean, norm)
                # Muon would take a step of full size with no gradient, by its momentum alone.
                self.optimizer.should_step = (lambda: False) if nothing else finite
            self.deepspeed.step()
        norm = self._gradient_norm() if norm is None else norm
        return StepResult(mean, norm, not self._is_finite(mean, norm), stopping, means)

    def _agreed(self, sums: _Sums, count: float, stop: bool) -> tuple[float, dict[str, float], bool]:
        """Means of loss and figures, and whether some rank was asked to stop: over all ranks, so that all agree."""
        names = sorted(sums.figures)
        figures = [float(sums.figures[name]) for name in names]
        loss, *figures, stops = self._sum([sums.loss.item(), *figures, float(stop)], None)
        same = self.groups.tp_size * self.groups.cp_size  # ranks that have the sums of one batch
        return loss / same / count, {n: f / same / count for n, f in zip(names, figures, strict=True)}, stops > 0

    def _is_finite(self, loss: float, norm: float | None) -> bool:
        """Whether the step may be taken; the norm is DeepSpeed's, as it stands when its update begins, or `norm`."""
        return math.isfinite(loss) and math.isfinite(self._gradient_norm() if norm is None else norm)

    def _gradient_norm(self) -> float:
        norm = float(self.deepspeed.optimizer._global_grad_norm)
        return norm if norm >= 0 else math.inf  # DeepSpeed's sign for "not finite" is -1

    def _clip_without_zero(self) -> float | None:
        """Without ZeRO, DeepSpeed clips but doesn't tell the norm: do it here. None at the other stages."""
        if self.recipe.parallel.zero_stage != 0:
            return None
        from deepspeed.runtime.utils import clip_grad_norm_

        limit = self.recipe.optimizer.clip or float("inf")
        return float(clip_grad_norm_(self.deepspeed.module.parameters(), limit, mpu=self.topology))

    def _sum(self, values: list[float], group: Any) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total, group=group)
        sums: list[float] = total.tolist()
        return sums


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
        "gradient_clipping": recipe.optimizer.clip if stage > 0 else 0.0,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,  # "untested" is every optimizer that is not DeepSpeed's own
        "zero_force_ds_cpu_optimizer": False,  # nor does offloading need DeepSpeed's own
        "bf16": {"enabled": train.dtype == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "steps_per_print": None,
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
