"""Where the time of a training step goes: forward, backward, optimizer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from megatron_iberis.training.engine import Engine


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Parts:
    """Listens to an engine's steps; on a GPU by its own clock, so that nothing waits.

    forward: the model and the loss. backward: DeepSpeed's, gradients summed in fp32. optimizer: all that the update
    does: norm, clip, Muon, AdamW, weights back to bf16.
    """

    def __init__(self, engine: Engine) -> None:
        self._on_gpu = engine.device.type == "cuda"
        self._began: dict[str, Any] = {}
        self._spans: list[tuple[str, Any, Any]] = []
        self.listen("forward", engine.model)
        engine.deepspeed.backward = self._around("backward", engine.deepspeed.backward)
        engine.deepspeed.step = self._around("optimizer", engine.deepspeed.step)

    def listen(self, part: str, module: torch.nn.Module) -> None:
        """Takes the forward pass of a module for a part, which may lie inside another."""
        module.register_forward_pre_hook(lambda *_: self._begin(part))
        module.register_forward_hook(lambda *_: self._end(part))

    def reset(self) -> None:
        """Forgets what was heard so far."""
        self._spans.clear()

    def seconds(self) -> dict[str, float]:
        """The seconds of each part since the last reset. The device must have done its work."""
        total: dict[str, float] = defaultdict(float)
        for part, begin, end in self._spans:
            total[part] += begin.elapsed_time(end) / 1e3 if self._on_gpu else end - begin
        return dict(total)

    def _around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            self._begin(part)
            result = function(*args, **kwargs)
            self._end(part)
            return result

        return measured

    def _begin(self, part: str) -> None:
        self._began[part] = self._now()

    def _end(self, part: str) -> None:
        self._spans.append((part, self._began.pop(part), self._now()))

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
